"""Checks of a data set, one module per kind of problem."""
