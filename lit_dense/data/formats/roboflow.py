"""Roboflow's exports: folders ``train``, ``valid`` and ``test``, each with images and their annotations."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from torchvision.datasets.folder import IMG_EXTENSIONS

from ..problems import Problems
from .annotations import Annotations
from .base import ROBOFLOW_COCO, Format, Request
from .coco import COCOFormat
from .csv_table import CSVFormat
from .pascal_voc import VOCFormat
from .yolo import YOLOFormat

COCO, CSV = ROBOFLOW_COCO, "_annotations.csv"
FOLDERS = {"train": "train", "val": "valid", "test": "test"}


class _Category(msgspec.Struct):
    id: int
    name: str
    supercategory: str | None = None


class _Categories(msgspec.Struct):
    categories: list[_Category]


class RoboflowFormat(Format):
    """Roboflow: an export's folder, one of its ``train``, ``valid`` and ``test``, or ``_annotations.coco.json``.

    Exports as COCO JSON, CSV, Pascal VOC and YOLO are read. The export's folder defines all splits. In COCO JSON,
    category 0 is the group of all classes, not a class: it is dropped if no box has it.
    """

    finds_images = True

    def recognises(self, path: Path) -> bool:
        """Return whether a path is an export's folder, a folder of a split, or its annotation file."""
        if path.is_file():
            return path.name in (COCO, CSV)
        return any((path / name).is_file() for name in (COCO, CSV)) or bool(self.splits(path))

    def splits(self, path: Path) -> tuple[str, ...]:
        """Return the splits of an export's folder; empty for the folder of a split."""
        if not path.is_dir() or _format_of(path) is not None:
            return ()
        return tuple(split for split, name in FOLDERS.items() if _format_of(path / name) is not None)

    def read(self, request: Request, problems: Problems) -> Annotations | None:
        """Read one split."""
        path, images = request.path, request.images
        if path.is_dir() and path.name != FOLDERS.get(request.split) and self.splits(path):
            path = path / FOLDERS[request.split]
        folder = path if path.is_dir() else path.parent
        inner = _format_of(path)
        if inner is None:
            tried = f"{COCO}, {CSV}, XML files, or images and labels of YOLO"
            problems.add(path, f"not a folder of a Roboflow export: it has no {tried}")
            return None
        if isinstance(inner, YOLOFormat):
            request = request._replace(path=folder.parent / "data.yaml", images=images or folder / "images")
            return inner.read(request, problems)
        file = folder / (COCO if isinstance(inner, COCOFormat) else CSV)
        path = path if path.is_file() or isinstance(inner, VOCFormat) else file
        content = inner.read(request._replace(path=path, images=images or folder), problems)
        if content is None:
            return None
        content = replace(content, folder=images or content.folder or folder)
        return _without_group(content, problems) if isinstance(inner, COCOFormat) else content


def _format_of(path: Path) -> Format | None:
    """Return the format of a split's folder or file; None if it is none."""
    folder = path if path.is_dir() else path.parent
    if path.name == COCO or (path.is_dir() and (folder / COCO).is_file()):
        return COCOFormat()
    if path.name == CSV or (path.is_dir() and (folder / CSV).is_file()):
        return CSVFormat()
    if not path.is_dir():
        return None
    if (folder.parent / "data.yaml").is_file() and (folder / "images").is_dir():
        return YOLOFormat()
    suffixes = {file.suffix.lower() for file in folder.iterdir()}
    # without images beside them, the XML files of a folder train are no export but Pascal VOC's
    return VOCFormat() if ".xml" in suffixes and not suffixes.isdisjoint(IMG_EXTENSIONS) else None


def _without_group(content: Annotations, problems: Problems) -> Annotations:
    """Drop the category that is the group of all others, if no box has it."""
    first = content.categories[0] if content.categories else None
    if first is None or first["id"] != 0 or (content.annotations["category_id"] == 0).any():
        return content
    groups = _groups(content.path)
    if groups is not None and first["name"] not in groups:
        return content
    what = "the first category is Roboflow's group of all classes, without boxes"
    detail = f"category 0: {first['name']}"
    problems.add(content.path, what, [detail], repair="dropped", hint=True)
    return replace(content, categories=content.categories[1:])


def _groups(path: Path) -> set[str] | None:
    """Return the names of supercategories; None if the file has none."""
    try:
        found: Any = msgspec.json.decode(path.read_bytes(), type=_Categories)
    except (OSError, msgspec.MsgspecError):
        return None
    groups = {category.supercategory for category in found.categories if category.id != 0} - {None, "none"}
    return groups or None
