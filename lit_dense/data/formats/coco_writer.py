"""Writing of COCO JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .annotations import Annotations
from .losses import LISTS, single_polygon

FOLDER = "annotations"
DECIMALS = 6  # of a pixel: undoes the rounding errors of sums and differences


def write_coco(splits: Mapping[str, Annotations], folder: Path) -> list[str]:
    """Write ``annotations/SPLIT.json`` for each split; images are in ``images/SPLIT``.

    Args:
        splits: Checked annotations of each split, in pixels.
        folder: The folder to write to.

    Returns:
        An empty list: the format holds everything.
    """
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    for split, content in splits.items():
        keys = ("id", "file_name", "width", "height", *LISTS)
        document = {
            "images": [{key: entry[key] for key in keys if key in entry} for entry in content.images],
            "annotations": [_entry(content, row) for row in range(len(content.annotations))],
            "categories": [dict(category) for category in content.categories],
        }
        (folder / FOLDER / f"{split}.json").write_text(json.dumps(document), encoding="utf-8")
    return []


def _entry(content: Annotations, row: int) -> dict[str, Any]:
    source = content.annotations[row]
    mask = content.segmentations[row] if content.segmentations is not None else None
    bbox = [round(value, DECIMALS) for value in source["bbox"].tolist()]
    area = float(source["area"])
    if not area > 0:
        polygon = single_polygon(mask)
        area = bbox[2] * bbox[3] if polygon is None else _area(polygon)
    entry = {
        "id": int(source["id"]),
        "image_id": int(source["image_id"]),
        "category_id": int(source["category_id"]),
        "bbox": bbox,
        "area": round(area, DECIMALS),
        "iscrowd": int(source["iscrowd"]),
    }
    if mask:
        entry["segmentation"] = mask
    if content.weight_key is not None:
        entry[content.weight_key] = float(source["weight"])
    return entry


def _area(polygon: list[float]) -> float:
    """Return the area of a polygon by the shoelace formula, in square pixels."""
    x, y = np.array(polygon[: len(polygon) // 2 * 2], np.float64).reshape(-1, 2).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)
