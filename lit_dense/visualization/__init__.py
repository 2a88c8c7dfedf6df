"""Visualisation: boxes and weights on images, and figures of evaluations and losses."""
