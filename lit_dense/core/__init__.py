"""Foundations of all components: samples, the base class, names, sums over processes, errors."""
