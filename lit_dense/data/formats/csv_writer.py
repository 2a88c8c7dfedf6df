"""Writing of CSV files with DeepForest's columns."""

import csv
from collections.abc import Mapping
from pathlib import Path

from .annotations import Annotations
from .folders import CLASSES
from .losses import Losses, boxes_by_image, check_names, check_writable, plain

COLUMNS = ("image_path", "xmin", "ymin", "xmax", "ymax", "label")


def write_csv(splits: Mapping[str, Annotations], folder: Path) -> list[str]:
    """Write ``SPLIT.csv`` for each split, and ``classes.txt``; images are in ``images/SPLIT``.

    An image without boxes has a row with empty coordinates.

    Args:
        splits: Checked annotations of each split, in pixels.
        folder: The folder to write to.

    Returns:
        A line about each kind of content that the format cannot hold.
    """
    check_names(splits)
    check_writable(splits, folder, stems=False, sizes=False)
    losses = Losses(splits)
    losses.crowds()
    losses.masks(polygons=False)
    losses.areas()
    losses.lists()
    losses.ids(first_category=1)
    names = [category["name"] for category in next(iter(splits.values())).categories]
    (folder / CLASSES).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    for split, content in splits.items():
        key = content.weight_key
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*COLUMNS, *([key] if key is not None else [])])
            writer.writerows(_rows(content, f"images/{split}"))
    return losses.lines


def _rows(content: Annotations, folder: str) -> list[list[str]]:
    table = content.annotations
    classes = {category["id"]: category["name"] for category in content.categories}
    rows = []
    for entry, indices in zip(content.images, boxes_by_image(content), strict=True):
        name = f"{folder}/{entry['file_name']}"
        kept = [row for row in indices if not table["iscrowd"][row]]
        for row in kept:
            x, y, width, height = table["bbox"][row].tolist()
            weight = [repr(float(table["weight"][row]))] if content.weight_key is not None else []
            label = classes[int(table["category_id"][row])]
            rows.append([name, *map(plain, (x, y, x + width, y + height)), label, *weight])
        if not kept:
            rows.append([name, "", "", "", "", "", *([""] if content.weight_key is not None else [])])
    return rows
