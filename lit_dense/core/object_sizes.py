"""COCO's sizes of objects."""

OBJECT_SIZES = ("small", "medium", "large")
AREA_LIMITS = (32**2, 96**2)
"""Limits between them, in square pixels; an object of a limit's area has the larger size."""
