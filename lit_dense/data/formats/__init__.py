"""Reading annotation files."""
