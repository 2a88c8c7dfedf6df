"""Outlines of objects: polygons and run-length masks of a COCO file, read for copying objects with their masks."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image, ImageDraw

from ..core.array_types import Bools, Ints
from .picture import Box

Outline = list[list[float]] | dict[str, Any]
"""Polygons as x1, y1, x2, y2, ...; or COCO's run-length encoding of the mask of the whole image."""


class _Annotation(msgspec.Struct, gc=False):
    id: int
    segmentation: Any = None


class _File(msgspec.Struct):
    annotations: list[_Annotation]


def read_outlines(path: Path, annotation_ids: Ints) -> dict[int, Outline]:
    """Read the outlines of objects.

    Args:
        path: The annotation file.
        annotation_ids: Annotation id of each object [N].

    Returns:
        The outline of each object that has one, by its row in ``annotation_ids``. Empty if the file is not COCO JSON.
    """
    try:
        content = msgspec.json.decode(path.read_bytes(), type=_File)
    except (OSError, msgspec.MsgspecError):
        return {}
    outlines: dict[int, Outline | None] = {}
    for annotation in content.annotations:
        # an id that is used twice names no object
        outline = None if annotation.id in outlines else _checked(annotation.segmentation)
        outlines[annotation.id] = outline
    found = ((row, outlines.get(number)) for row, number in enumerate(annotation_ids.tolist()))
    return {row: outline for row, outline in found if outline is not None}


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


def _checked(segmentation: Any) -> Outline | None:
    """Return a segmentation if it has a known form; None if not."""
    if isinstance(segmentation, Mapping):
        size, counts = segmentation.get("size"), segmentation.get("counts")
        known = isinstance(size, list) and len(size) == 2 and isinstance(counts, list | str)
        return {"size": size, "counts": counts} if known else None
    if not isinstance(segmentation, list):
        return None
    polygons = [polygon for polygon in segmentation if _is_polygon(polygon)]
    return polygons or None


def _is_polygon(values: Any) -> bool:
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) < 6 or len(values) % 2:
        return False
    return all(isinstance(value, int | float) for value in values)
