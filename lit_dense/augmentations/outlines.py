"""Outlines of objects: polygons and run-length masks, for copying objects with their masks."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ..core.array_types import Bools
from .picture import Box

Outline = list[list[float]] | dict[str, Any]
"""Polygons as x1, y1, x2, y2, ...; or COCO's run-length encoding of the mask of the whole image."""


def outline_of(segmentation: Any) -> Outline | None:
    """Return a segmentation of a COCO file if it has a known form; None if not.

    Args:
        segmentation: Polygons, a run-length encoding or anything else.
    """
    if isinstance(segmentation, Mapping):
        size, counts = segmentation.get("size"), segmentation.get("counts")
        known = isinstance(size, list) and len(size) == 2 and isinstance(counts, list | str)
        return {"size": size, "counts": counts} if known else None
    if not isinstance(segmentation, list):
        return None
    polygons = [polygon for polygon in segmentation if _is_polygon(polygon)]
    return polygons or None


def mask_of(outline: Outline, window: Box) -> Bools:
    """Rasterise an outline within a window of its image.

    Args:
        outline: The outline.
        window: The window, in pixels of the image.

    Returns:
        Whether a pixel belongs to the object [height, width].
    """
    x1, y1, x2, y2 = window
    if isinstance(outline, dict):
        coco_mask = import_module("pycocotools.mask")
        encoded: Any = outline
        if isinstance(outline["counts"], list):
            encoded = coco_mask.frPyObjects(outline, *outline["size"])
        whole: Bools = coco_mask.decode(encoded).astype(bool)
        part = np.zeros((y2 - y1, x2 - x1), bool)
        inside = whole[y1:y2, x1:x2]
        part[: inside.shape[0], : inside.shape[1]] = inside
        return part
    image = Image.new("1", (x2 - x1, y2 - y1))
    draw = ImageDraw.Draw(image)
    for polygon in outline:
        # a pixel's centre is at 0.5 in the file, and at 0 for PIL
        points = np.array(polygon).reshape(-1, 2) - (x1 + 0.5, y1 + 0.5)
        draw.polygon([(x, y) for x, y in points.tolist()], fill=1, outline=1)
    return np.array(image)


def _is_polygon(values: Any) -> bool:
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) < 6 or len(values) % 2:
        return False
    return all(isinstance(value, int | float) for value in values)
