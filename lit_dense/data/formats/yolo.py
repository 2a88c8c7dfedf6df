"""YOLO's files: ``data.yaml``, and one text file of boxes or polygons for each image."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...core.array_types import Bools, Doubles, Ints
from ..coco_data import Category
from ..image_files import in_threads
from ..problems import Problems
from .annotations import Annotations, TextPlaces, Wording, table_of
from .base import Format, Request
from .folders import CLASSES, image_entries, shown, stem_of
from .yolo_config import YOLOConfig, read_config, splits_of
from .yolo_lines import LineReader

WORDING = Wording(
    file="label file",
    whole="label file",
    box="a line must be class, middle x, middle y, width and height, the last four as shares of the image",
    name="the path",
    crowd="",
    xywh=False,
    pixels=False,
    sized=False,
    stems=True,
)
TOLERANCE = 1e-6  # of a share of the image: rounding
FAR = 2.0  # larger numbers are not shares


class YOLOFormat(Format):
    """YOLO: ``data.yaml``, and a text file for each image with a box or polygon on each line, in shares of the image.

    The text file of ``images/a/1.jpg`` is ``labels/a/1.txt``: the last folder called ``images`` is replaced by
    ``labels``. Without such a folder it is beside the image. A polygon becomes its box. Category ids are the class
    indices.
    """

    finds_images = True

    def recognises(self, path: Path) -> bool:
        """Return whether a path is a YAML file, a folder with ``data.yaml``, or one of labels with ``classes.txt``."""
        if path.is_file():
            return path.suffix.lower() in (".yaml", ".yml")
        return (path / "data.yaml").is_file() or (
            (path / CLASSES).is_file()
            and any(file.suffix == ".txt" and file.name != CLASSES for file in path.iterdir())
        )

    def splits(self, path: Path) -> tuple[str, ...]:
        """Return the splits that ``data.yaml`` gives; a validation set that is the training set is left out."""
        return splits_of(path)

    def read(self, request: Request, problems: Problems) -> Annotations | None:
        """Read the label files of one split."""
        if request.weight_key is not None:
            problems.add(request.path, f"no weight {request.weight_key!r}: label files hold no weights")
        config = read_config(request, problems)
        return None if config is None else _read_split(config, request, problems)

    def write(self, splits: Mapping[str, Annotations], folder: Path) -> list[str]:
        """Write ``data.yaml`` and ``labels/SPLIT``."""
        from .yolo_writer import write_yolo

        return write_yolo(splits, folder)


def _read_split(config: YOLOConfig, request: Request, problems: Problems) -> Annotations:
    names, folder = config.images, config.folder
    labels = _label_files(config, problems)
    contents = in_threads(_content, [labels.get(name, "") for name in names], "Reading label files")
    base = config.path.parent
    reader = LineReader(config.names, request.masks, config.keypoints)
    for number, (name, content) in enumerate(zip(names, contents, strict=True)):
        if content:
            reader.read(number, content, shown(labels[name], base))
    unreadable = [
        shown(labels[name], base) for name, c in zip(names, contents, strict=True) if c is None and name in labels
    ]
    if unreadable:
        problems.add(config.path, "label files that cannot be read", unreadable)
    files = [shown(labels.get(name, ""), base) for name in names]
    reader.report(config.path, problems)
    index, lines, classes, values = reader.columns()
    boxes, keep = _inside(values, TextPlaces(files, index, lines), config.path, problems)
    index, lines = index[keep], lines[keep]
    image_ids = index + 1
    masks = None
    if request.masks:
        masks = [reader.polygons.get(row) for row in np.flatnonzero(keep).tolist()]
    return Annotations(
        path=config.path,
        images=image_entries(names),
        annotations=table_of(image_ids, classes[keep], boxes),
        categories=[Category(id=number, name=name) for number, name in sorted(config.names.items())],
        folder=folder,
        relative=True,
        place=TextPlaces(files, index, lines),
        segmentations=masks,
        wording=WORDING,
    )


def _content(path: str) -> bytes | None:
    if not path:
        return None
    try:
        with open(path, "rb") as file:  # noqa: PTH123 (pathlib is slow for 100,000 files)
            return file.read()
    except OSError:
        return None


def _label_files(config: YOLOConfig, problems: Problems) -> dict[str, str]:
    """Return the existing label file of each image, and report missing ones and those without an image."""
    base = os.path.abspath(config.folder)  # noqa: PTH100 (resolve() would replace links)
    folders: dict[str, tuple[str, dict[str, str]]] = {}
    found: dict[str, str] = {}
    missing = []
    used: dict[str, set[str]] = {}
    for name in config.images:
        inner, _, last = name.rpartition("/")
        place = os.path.normpath(f"{base}/{inner}")
        if place not in folders:
            where = config.labels or label_folder(place)
            folders[place] = where, _texts(where)
        where, texts = folders[place]
        stem = stem_of(last)
        if (file := texts.get(stem)) is not None:
            found[name] = f"{where}/{file}"
            used.setdefault(where, set()).add(stem)
        else:
            missing.append(f"{name}: looked for {where}/{stem}.txt")
    if missing and not found:
        problems.add(
            config.path,
            "no label file for any image",
            missing,
            count=0,
            cure="the label file of images/a/1.jpg is labels/a/1.txt: the last folder called images is replaced",
        )
    elif missing:
        problems.add(config.path, "images without a label file", missing, repair="used as images without objects")
    if config.whole_folders:
        orphans = [
            shown(f"{where}/{file}", config.path.parent)
            for where, texts in dict(folders.values()).items()
            for stem, file in texts.items()
            if stem not in used.get(where, ()) and file != CLASSES
        ]
        if orphans:
            problems.add(config.path, "label files without an image", orphans, repair="ignored")
    return found


def label_folder(place: str) -> str:
    """Return the folder of the labels of the images in a folder.

    Args:
        place: An absolute path with slashes.
    """
    before, mark, after = f"{place}/".rpartition("/images/")
    labels = f"{before}/labels/{after}".rstrip("/") if mark else place
    return labels if Path(labels).is_dir() or not _texts(place) else place


def _texts(folder: str) -> dict[str, str]:
    """Return the text files of a folder by stem."""
    try:
        with os.scandir(folder) as entries:
            return {stem_of(entry.name): entry.name for entry in entries if entry.name.lower().endswith(".txt")}
    except OSError:
        return {}


def _inside(values: Doubles, places: TextPlaces, path: Path, problems: Problems) -> tuple[Doubles, Bools]:
    """Return x, y, width and height of the rows to keep, [N, 4], and which rows these are, [M]."""
    with np.errstate(invalid="ignore", over="ignore"):
        boxes = np.concatenate([values[:, :2] - values[:, 2:] / 2, values[:, 2:]], axis=1)
        outside: Bools = np.asarray(((values < -TOLERANCE) | (values > 1 + TOLERANCE)).any(1))
        far: Bools = np.asarray(outside & (np.abs(values) > FAR).any(1))
    keep: Bools = np.ones(len(values), bool)
    if not outside.any():
        return boxes, keep

    def describe(rows: Ints) -> list[str]:
        return [f"{places(row)}: {' '.join(f'{value:g}' for value in values[row])}" for row in rows.tolist()]

    what = "coordinates outside 0 to 1"
    if 2 * far.sum() > len(values):
        cure = "these look like pixels: divide x and width by the image's width, y and height by its height"
        problems.add(path, what, describe(np.flatnonzero(outside)), cure=cure)
        return boxes[~outside], ~outside
    with np.errstate(invalid="ignore"):
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1).clip(0, 1)
        lost: Bools = np.asarray(outside & (far | ~(corners[:, 2:] > corners[:, :2]).all(1)))
    clipped = outside & ~lost
    if clipped.any():
        problems.add(path, what, describe(np.flatnonzero(clipped)), repair="clipped to the image")
    if lost.any():
        problems.add(path, f"{what}, with nothing inside the image", describe(np.flatnonzero(lost)), repair="dropped")
    boxes[clipped] = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)[clipped]
    return boxes[~lost], ~lost
