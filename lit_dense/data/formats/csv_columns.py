"""The columns of a CSV file, found by the names in its header."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ...core.errors import nearest
from ..problems import KEPT, Problems
from .base import Request

SEPARATORS = (",", ";", "\t")
IMAGE = ("image_path", "filename", "file_name", "image_id", "image", "img", "path", "file", "image_name", "imageid")
LABEL = ("label", "class", "class_name", "category", "category_name", "name", "labelname", "class_id", "category_id")
CROWD = ("iscrowd", "is_crowd", "difficult", "isgroupof", "is_group_of")
SPLIT = ("split", "subset", "set")
BOXES = {
    "corners": (
        ("xmin", "ymin", "xmax", "ymax"),
        ("x_min", "y_min", "x_max", "y_max"),
        ("x1", "y1", "x2", "y2"),
        ("left", "top", "right", "bottom"),
    ),
    "sides": (("x", "y", "w", "h"), ("bbox_x", "bbox_y", "bbox_width", "bbox_height"), ("x", "y", "width", "height")),
}
"""Accepted names of the columns of a box: x1, y1, x2, y2, or x, y, width and height."""
LONGEST_LIST = 500  # characters of the columns in a message
ACCEPTED = (
    "an image (image_path, filename, image_id ...), a box (xmin, ymin, xmax, ymax; x, y, w, h; or bbox) and a class "
    "(label, class ...)"
)


class Columns(NamedTuple):
    """Positions of the columns.

    Args:
        separator: The separator.
        width: Number of columns of the header.
        image: Position of the image's name.
        label: Position of the class; -1 if all boxes have one class.
        box: Positions of four numbers, or of one text with four numbers.
        corners: Whether the numbers are x1, y1, x2, y2, not x, y, width and height.
        size: Positions of the image's width and height; empty if there are none.
        weight: Position of the weight; -1 if none is read.
        crowd: Positions of marks of crowds, difficult objects and groups.
        ignore: Position of the mark that the user has named; -1 if there is none.
        split: Position of the split; -1 if there is none.
        images: Positions and names of all columns that can be the image.
        labels: Positions and names of all columns that can be the class.
    """

    separator: str
    width: int
    image: int
    label: int
    box: tuple[int, ...]
    corners: bool
    size: tuple[int, ...]
    weight: int
    crowd: tuple[int, ...]
    ignore: int
    split: int
    images: dict[int, str]
    labels: dict[int, str]

    @classmethod
    def of(cls, text: str, request: Request, names: Sequence[str] | None, problems: Problems) -> "Columns | None":
        """Find the columns by the header; None if some are missing, which is reported."""
        first = text.partition("\n")[0]
        headers = {mark: next(csv.reader([first], delimiter=mark), []) for mark in SEPARATORS}
        mark = max(headers, key=lambda mark: len(headers[mark]))
        header = [name.strip().strip('"').lower() for name in headers[mark]]
        image, label = _first(header, IMAGE), _first(header, LABEL)
        box, corners = _box(header)
        one_class = names is not None and len(names) == 1
        wanted = {"image": image >= 0, "box": bool(box), "class": label >= 0 or one_class}
        missing = [word for word, present in wanted.items() if not present]
        if missing:
            _report_header(header, missing, request.path, problems)
            return None
        sides = tuple(_first(header, (side, f"image_{side}", f"img_{side}")) for side in ("width", "height"))
        size = () if min(sides) < 0 or set(sides) & set(box) else sides
        weight = -1
        if request.weight_key is not None:
            weight = _first(header, (request.weight_key.lower(),))
            if weight < 0:
                what = f"no column {request.weight_key!r} of weights{nearest(request.weight_key, header)}"
                problems.add(request.path, f"{what}: the columns are {', '.join(header)}")
        used = (header[position] for position in (image, label, *box, *size, weight) if position >= 0)
        if repeated := sorted({name for name in used if header.count(name) > 1}):
            problems.add(request.path, "names of several columns", repeated, repair="the first column is used")
        ignore = _ignore(header, request, problems)
        crowd = tuple(header.index(name) for name in CROWD if name in header)
        crowd = tuple(position for position in crowd if position not in (ignore, weight))
        images, labels = _all(header, IMAGE), _all(header, LABEL)
        split = _first(header, SPLIT)
        return cls(mark, len(header), image, label, box, corners, size, weight, crowd, ignore, split, images, labels)


def _first(header: Sequence[str], accepted: Sequence[str]) -> int:
    return next((header.index(name) for name in accepted if name in header), -1)


def _all(header: Sequence[str], accepted: Sequence[str]) -> dict[int, str]:
    return {header.index(name): name for name in accepted if name in header}


def _ignore(header: Sequence[str], request: Request, problems: Problems) -> int:
    key = request.ignore_key
    if key is None:
        return -1
    position = _first(header, (key.lower(),))
    if position < 0:
        what = f"no column {key!r} (ignore_key){nearest(key, header)}"
        problems.add(request.path, what, repair=KEPT, cure="correct ignore_key, or leave it out")
    return position


def _box(header: Sequence[str]) -> tuple[tuple[int, ...], bool]:
    for kind, accepted in BOXES.items():
        for names in accepted:
            if all(name in header for name in names):
                return tuple(header.index(name) for name in names), kind == "corners"
    return ((header.index("bbox"),), False) if "bbox" in header else ((), False)


def _report_header(header: Sequence[str], missing: Sequence[str], path: Path, problems: Problems) -> None:
    known = [*IMAGE, *LABEL, "bbox", *(name for names in BOXES.values() for row in names for name in row)]
    unknown = [name for name in header if name and name not in known]
    guesses = [f"{name!r}:{hint}" for name in unknown if (hint := nearest(name, known))]
    listed = ", ".join(header) or "none"
    listed = listed if len(listed) <= LONGEST_LIST else f"{listed[:LONGEST_LIST]} ..."
    what = f"line 1: no column of the {' and the '.join(missing)}: the columns are {listed}"
    cure = f"the header must name {ACCEPTED}"
    if not header:
        cure = f"the first line must be the header, without empty lines before it: it must name {ACCEPTED}"
    elif len(header) == 1:
        cure += "; columns are separated by commas, semicolons or tabs"
    if sum(_is_number(name) for name in header) >= 2:
        cure = f"the first line looks like a box, not like a header: write one that names {ACCEPTED}"
    elif guesses:
        cure += f"; {'; '.join(guesses)}"
    problems.add(path, what, cure=cure)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
