"""The command line, on Lightning's."""
