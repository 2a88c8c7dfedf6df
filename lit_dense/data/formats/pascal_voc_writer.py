"""Writing of Pascal VOC's XML files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from .annotations import Annotations
from .folders import CLASSES, stem_of
from .losses import Losses, boxes_by_image, check_names, check_writable, plain

FOLDER = "annotations"


def write_voc(splits: Mapping[str, Annotations], folder: Path, first_pixel: int) -> list[str]:
    """Write ``annotations/SPLIT`` and ``annotations/classes.txt``; images are in ``images/SPLIT``.

    Args:
        splits: Checked annotations of each split, in pixels.
        folder: The folder to write to.
        first_pixel: The coordinate of the first pixel, 0 or 1.

    Returns:
        A line about each kind of content that the format cannot hold.
    """
    check_names(splits)
    check_writable(splits, folder, stems=True, sizes=True)
    losses = Losses(splits)
    losses.masks(polygons=False)
    losses.areas()
    losses.lists()
    losses.ids(first_category=1)
    names = [category["name"] for category in next(iter(splits.values())).categories]
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    (folder / FOLDER / CLASSES).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    for split, content in splits.items():
        classes = {category["id"]: category["name"] for category in content.categories}
        for entry, rows in zip(content.images, boxes_by_image(content), strict=True):
            objects = [_object(content, row, classes, first_pixel) for row in rows]
            path = folder / FOLDER / split / f"{stem_of(entry['file_name'])}.xml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_document(entry, split, objects), encoding="utf-8")
    return losses.lines


def _document(entry: Mapping[str, Any], split: str, objects: list[str]) -> str:
    name = entry["file_name"].rpartition("/")[2]
    return (
        f"<annotation>\n  <folder>{escape(split)}</folder>\n  <filename>{escape(name)}</filename>\n"
        f"  <size><width>{entry['width']}</width><height>{entry['height']}</height><depth>3</depth></size>\n"
        f"{''.join(objects)}</annotation>\n"
    )


def _object(content: Annotations, row: int, classes: Mapping[int, str], first_pixel: int) -> str:
    entry = content.annotations[row]
    x, y, width, height = entry["bbox"].tolist()
    values = zip(
        ("xmin", "ymin", "xmax", "ymax"), (x + first_pixel, y + first_pixel, x + width, y + height), strict=True
    )
    box = "".join(f"<{key}>{plain(value)}</{key}>" for key, value in values)
    weight = ""
    if content.weight_key is not None:
        weight = f"<{content.weight_key}>{float(entry['weight'])!r}</{content.weight_key}>"
    return (
        f"  <object>\n    <name>{escape(classes[int(entry['category_id'])])}</name>\n"
        f"    <difficult>{int(entry['iscrowd'])}</difficult>{weight}\n    <bndbox>{box}</bndbox>\n  </object>\n"
    )
