"""What can be wrong with a data set: each check is a module."""
