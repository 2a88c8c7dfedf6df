"""Writing of YOLO's files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import yaml

from ...core.array_types import Doubles
from .annotations import Annotations
from .folders import stem_of
from .losses import Losses, boxes_by_image, check_writable, single_polygon

DIGITS = 10  # decimals of a share of the image
SAME = 1.0  # pixels; a polygon whose box differs by more is written as its box


def write_yolo(splits: Mapping[str, Annotations], folder: Path) -> list[str]:
    """Write ``data.yaml`` and ``labels/SPLIT``; images are in ``images/SPLIT``.

    Args:
        splits: Checked annotations of each split, in pixels.
        folder: The folder to write to.

    Returns:
        A line about each kind of content that the format cannot hold.
    """
    check_writable(splits, folder, stems=True, sizes=False)
    losses = Losses(splits)
    losses.crowds()
    losses.masks(polygons=True)
    losses.areas()
    losses.weights()
    losses.lists()
    losses.ids(first_category=0)
    names = [category["name"] for category in next(iter(splits.values())).categories]
    config = {split: f"images/{split}" for split in splits} | {"nc": len(names), "names": dict(enumerate(names))}
    if "train" in splits:
        config.setdefault("val", config["train"])  # other tools require the key
    (folder / "data.yaml").write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
    for split, content in splits.items():
        _write_labels(content, folder / "labels" / split)
    return losses.lines


def _write_labels(content: Annotations, folder: Path) -> None:
    table, masks = content.annotations, content.segmentations or []
    index = {category["id"]: number for number, category in enumerate(content.categories)}
    for entry, rows in zip(content.images, boxes_by_image(content), strict=True):
        size = np.array([entry["width"], entry["height"]], np.float64)
        lines = []
        for row in rows:
            if table["iscrowd"][row]:
                continue
            values = _polygon(masks[row], table["bbox"][row], size) if masks else None
            if values is None:
                corner, sides = table["bbox"][row][:2], table["bbox"][row][2:]
                values = np.concatenate([(corner + sides / 2) / size, sides / size])
            numbers = " ".join(f"{value:.{DIGITS}f}".rstrip("0").rstrip(".") for value in values.tolist())
            lines.append(f"{index[int(table['category_id'][row])]} {numbers}\n")
        path = folder / f"{stem_of(entry['file_name'])}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines), encoding="utf-8")


def _polygon(mask: object, bbox: Doubles, size: Doubles) -> Doubles | None:
    """Return the points of a mask in shares of the image; None if it is written as a box."""
    points = single_polygon(mask)
    if points is None or len(points) % 2:
        return None
    pairs = np.array(points, np.float64).reshape(-1, 2)
    box = np.concatenate([pairs.min(0), pairs.max(0) - pairs.min(0)])
    return (pairs / size).ravel() if np.abs(box - bbox).max() <= SAME else None
