"""Reading of COCO JSON files, with checks of their form."""

import json
import re
import struct
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from lightning.pytorch.utilities import rank_zero_info

from ...core.errors import nearest
from ..coco_data import Category
from ..problems import KEPT, Problems
from .annotations import NO_ID, TABLE, WEIGHTED_TABLE, Annotations
from .base import NOT_UTF8, Format, Request, missing_file, not_utf8
from .coco_schema import IMAGE_KEYS, decode_coco, file_of
from .folders import is_name

LARGE = 50_000_000  # bytes; reading a larger file takes seconds

_ROW = struct.Struct("<3q5dq")
_KEY = re.compile(rb'"(\w+)"\s*:')
_TEXT_ID = re.compile(r'_id is "')
_FROM_MASKS = (
    "of polygons it is the smallest x, the smallest y, the largest x minus the smallest, and the largest y minus the "
    "smallest"
)
_CROWD_TEXTS = {"0": 0, "0.0": 0, "false": 0, "no": 0, "1": 1, "1.0": 1, "true": 1, "yes": 1}
_WEIGHT = struct.Struct("<d")


class COCOFormat(Format):
    """COCO JSON: one file for each split, with masks, crowds and ids; LVIS's lists of absent classes are read too."""

    needs_images = True

    def recognises(self, path: Path) -> bool:
        """Return whether a file is called ``*.json``."""
        return path.is_file() and path.suffix.lower() == ".json"

    def read(self, request: Request, problems: Problems) -> Annotations | None:
        """Read one file."""
        if request.split == "train":
            _note_absent_keys(request, problems)
        return read_coco(request.path, problems, request.weight_key, request.masks, request.ignore_key)

    def write(self, splits: Mapping[str, Annotations], folder: Path) -> list[str]:
        """Write ``annotations/SPLIT.json`` for each split."""
        from .coco_writer import write_coco

        return write_coco(splits, folder)


def read_coco(
    path: Path,
    problems: Problems,
    weight_key: str | None = None,
    masks: bool = False,
    ignore_key: str | None = None,
) -> Annotations | None:
    """Read a COCO file.

    A regular file is decoded by its schema. Any other file is parsed entry by entry, to report all irregular entries.
    Annotations are packed into a flat buffer while the file is parsed, so the masks and other contents of only one
    annotation are in memory at a time.

    Args:
        path: The file.
        problems: Problems of the file's form are added to it.
        weight_key: The key of annotations with a weight; 1 for those without it. Default: no weights are read.
        masks: Whether to keep the masks.
        ignore_key: The key of annotations that marks ignore regions, as ``iscrowd`` does. Default: none is read.

    Returns:
        The content; None if the file cannot be read.
    """
    dtype = TABLE if weight_key is None else WEIGHTED_TABLE
    if (content := decode_coco(path, dtype, weight_key, ignore_key, masks)) is not None:
        return Annotations(path, *content[:3], weight_key, segmentations=content[3])
    table = _Table(dtype, ignore_key)
    table.segmentations = [] if masks else None
    keep = table.keep if weight_key is None else partial(table.keep_with_weight, weight_key)
    try:
        if (size := path.stat().st_size) > LARGE:
            rank_zero_info(f"Reading {path} ({size / 1e6:.0f} MB) ...")
        document = json.loads(path.read_text(encoding="utf-8-sig"), object_hook=keep)
    except FileNotFoundError:
        problems.add(path, missing_file(path))
    except json.JSONDecodeError as error:
        problems.add(path, f"not JSON: {error.msg} in line {error.lineno}, column {error.colno}")
    except UnicodeDecodeError as error:
        problems.add(path, not_utf8(error), cure=NOT_UTF8)
    except (OSError, ValueError, RecursionError) as error:
        problems.add(path, f"cannot be read: {error}")
    else:
        if isinstance(document, dict):
            images = _entries(document, "images", path, problems)
            rows = _entries(document, "annotations", path, problems)
            annotations = table.select(rows, path, problems)
            categories = _categories(_entries(document, "categories", path, problems), path, problems)
            return Annotations(path, images, annotations, categories, weight_key, segmentations=table.masks(rows))
        problems.add(path, f"not a COCO file: its JSON is {short(document)}, not an object with images and annotations")
    return None


def _note_absent_keys(request: Request, problems: Problems) -> None:
    """Report a key of weights or of ignore regions that the file does not contain: probably a wrong name."""
    given = {"ignore_key": request.ignore_key, "weight_key": request.weight_key}
    keys = {argument: key for argument, key in given.items() if key is not None}
    if not keys or not request.path.is_file():
        return
    content = request.path.read_bytes()
    for argument, key in keys.items():
        if not any(json.dumps(key, ensure_ascii=ascii).encode() in content for ascii in (True, False)):
            known = {name.decode() for name in _KEY.findall(content[:100_000])}
            what = f"no annotation has the key {key!r} ({argument}){nearest(key, known)}"
            problems.add(request.path, what, repair=KEPT, cure=f"correct {argument}, or leave it out")


def integer(value: Any) -> int | None:
    """Convert a value to a 64-bit integer; None if it is not a whole number of that size."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and -(2**63) < value < 2**63 else None


def short(value: Any) -> str:
    """Format a value for a message."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else f"{text[:57]}..."


class _Row(int):
    """The number of an annotation's row in the table, which replaces the annotation in the parsed JSON."""


class _Table:
    """A table into which annotations are packed as rows of numbers while the JSON is parsed."""

    def __init__(self, dtype: np.dtype[np.void], ignore_key: str | None = None) -> None:
        self.dtype, self.ignore_key = dtype, ignore_key
        self.row_size = dtype.itemsize
        self.buffer = bytearray()
        self.broken: dict[int, str] = {}
        self.with_masks = False
        self.odd_crowds: dict[int, Any] = {}
        self.segmentations: list[Any] | None = None
        self.odd_ignores: dict[int, Any] = {}
        self.odd_areas: dict[int, Any] = {}

    def keep(self, entry: dict[str, Any]) -> Any:
        """Replace a parsed JSON object by its needed parts; the parser calls this with every object."""
        if "file_name" in entry or "coco_url" in entry:
            return _image(entry)
        if "image_id" not in entry and "bbox" not in entry:
            return entry
        row = _Row(len(self.buffer) // self.row_size)
        if self.segmentations is not None:
            self.segmentations.append(entry.get("segmentation"))
        iscrowd = entry.get("iscrowd", 0)
        if type(iscrowd) is not int or iscrowd not in (0, 1):
            if iscrowd is not None:
                self.odd_crowds[row] = iscrowd
            iscrowd = crowd_of(iscrowd) or 0
        if self.ignore_key is not None and self.ignore_key in entry:
            ignore = crowd_of(entry[self.ignore_key])
            if ignore is None:
                self.odd_ignores[row] = entry[self.ignore_key]
            iscrowd |= ignore or 0
        try:
            self.buffer += _ROW.pack(
                entry["id"],
                entry["image_id"],
                entry["category_id"],
                *entry["bbox"],
                entry.get("area", np.nan),
                iscrowd,
            )
        except (KeyError, TypeError, OverflowError, struct.error):
            self._keep_unusual(row, entry, iscrowd)
        return row

    def keep_with_weight(self, weight_key: str, entry: dict[str, Any]) -> Any:
        """Do the same as ``keep``, and pack the weight of an annotation."""
        kept = self.keep(entry)
        if type(kept) is _Row:
            weight = entry.get(weight_key, 1)
            # not isinstance: true and false are not weights here; false would remove an object from the loss
            number = type(weight) in (int, float) and _is_number(weight)
            self.buffer += _WEIGHT.pack(weight if number else np.nan)
        return kept

    def _keep_unusual(self, row: int, entry: dict[str, Any], iscrowd: int) -> None:
        wrong = []
        ids = {}
        for key in ("image_id", "category_id"):
            ids[key] = integer(entry.get(key))
            if ids[key] is None:
                wrong.append(f"{key} is {short(entry[key])}, not an integer" if key in entry else f"no {key}")
        bbox = entry.get("bbox")
        if not isinstance(bbox, list) or len(bbox) != 4 or not all(_is_number(value) for value in bbox):
            wrong.append(f"bbox is {short(bbox)}, not four numbers" if "bbox" in entry else "no bbox")
            bbox = [0.0] * 4
            self.with_masks |= bool(entry.get("segmentation"))
        if wrong:
            name = f"annotation {short(entry.get('id'))} of image {short(entry.get('image_id'))}"
            self.broken[row] = f"{name}: {', '.join(wrong)}"
        number = integer(entry.get("id"))
        area = entry.get("area")
        if area is not None and not _is_number(area):
            self.odd_areas[row] = area
        self.buffer += _ROW.pack(
            NO_ID if number is None else number,
            ids["image_id"] or 0,
            ids["category_id"] or 0,
            *bbox,
            area if _is_number(area) else np.nan,
            iscrowd,
        )

    def select(self, rows: list[Any], path: Path, problems: Problems) -> npt.NDArray[np.void]:
        """Return the rows of the list of annotations; entries that are not annotations are reported."""
        others = [row for row in rows if type(row) is not _Row]
        broken = [self.broken[row] for row in rows if type(row) is _Row and row in self.broken]
        details = broken + [f"{short(entry)}: no image_id, no bbox" for entry in others]
        if details:
            what = "annotations with missing keys or values of a wrong type"
            problems.add(path, what, details, repair="dropped", cure=self._cure())
        kept = self._kept(rows)
        table: npt.NDArray[np.void] = np.frombuffer(self.buffer, self.dtype)[np.array(kept, np.int64)]
        _note_odd_crowds(
            [(table[place], self.odd_crowds[row]) for place, row in enumerate(kept) if row in self.odd_crowds],
            path,
            problems,
        )
        if areas := _values_of(self.odd_areas, kept, table):
            what = "areas that are not numbers"
            cure = "write area as a number of square pixels, or leave it out"
            problems.add(path, what, areas, repair="the area of the box is used", cure=cure)
        if odd := _values_of(self.odd_ignores, kept, table):
            what = f"values of {self.ignore_key} (ignore_key) that are neither true nor false"
            problems.add(path, what, odd, cure="write 1 or true for a region to ignore, and 0 or false for an object")
        return table

    def _cure(self) -> str:
        """Return the advice for the annotations that cannot be read, by what is wrong with them."""
        texts = "; ".join(self.broken.values())
        cures = []
        if _TEXT_ID.search(texts):
            cures.append("write ids as numbers without quotation marks, in images, annotations and categories")
        if "bbox is" in texts or "no bbox" in texts:
            boxes = "write bbox as a list of four numbers without quotation marks: x, y, width and height in pixels"
            cures.append(f"{boxes}; {_FROM_MASKS}" if self.with_masks else boxes)
        return "; ".join(cures) or "each annotation needs image_id and category_id, which are integers, and bbox"

    def masks(self, rows: list[Any]) -> list[Any] | None:
        """Return the masks of the rows that ``select`` returns; None if masks are not kept."""
        return None if self.segmentations is None else [self.segmentations[row] for row in self._kept(rows)]

    def _kept(self, rows: list[Any]) -> list[_Row]:
        return [row for row in rows if type(row) is _Row and row not in self.broken]


def _values_of(values: Mapping[int, Any], kept: list[_Row], table: npt.NDArray[np.void]) -> list[str]:
    """Return a line about each value of an annotation that is kept; values are given by row."""
    return [f"{_named(table[place])}: {short(values[row])}" for place, row in enumerate(kept) if row in values]


def _named(row: Any) -> str:
    """Return the ids of a row of the table."""
    number = "without id" if row["id"] == NO_ID else row["id"]
    return f"annotation {number} of image {row['image_id']}"


def crowd_of(value: Any) -> int | None:
    """Convert a value of ``iscrowd`` to 0 or 1; None if its meaning is unclear."""
    if value is None:
        return 0
    if isinstance(value, str):
        return _CROWD_TEXTS.get(value.strip().lower())
    return int(value) if isinstance(value, int | float) and value in (0, 1) else None


def _note_odd_crowds(given: list[tuple[Any, Any]], path: Path, problems: Problems) -> None:
    """Report values of ``iscrowd`` that are neither 0 nor 1, given with their rows of the table."""
    unclear: list[str] = []
    texts: list[str] = []
    others: list[str] = []
    for row, value in given:
        name = f"{_named(row)}: iscrowd is {short(value)}"
        meaning = crowd_of(value)
        if meaning is None:
            unclear.append(name)
        else:
            (texts if isinstance(value, str) else others).append(f"{name}, read as {meaning}")
    cure = "write iscrowd as the number 1 for a box around a crowd of objects, and as 0 for every other box"
    if unclear:
        problems.add(path, "values of iscrowd that are neither 0 nor 1", unclear, cure=cure)
    if texts:
        problems.add(path, "values of iscrowd that are text", texts, repair="read as numbers", cure=cure)
    if others:
        problems.add(path, "values of iscrowd that are true, false or decimal numbers", others, cure=cure, hint=True)


def _image(entry: dict[str, Any]) -> dict[str, Any]:
    kept = {key: entry[key] for key in IMAGE_KEYS if key in entry}
    if "file_name" not in kept:
        kept["file_name"] = file_of(entry["coco_url"])
    return kept


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 1e300)


def _entries(document: dict[str, Any], key: str, path: Path, problems: Problems) -> list[Any]:
    entries = document.get(key)
    if isinstance(entries, list):
        return entries
    instead = f"it is {short(entries)}" if key in document else f"the keys are {', '.join(document) or 'none'}"
    problems.add(path, f"no list {key!r}: {instead}")
    return []


def _categories(entries: list[Any], path: Path, problems: Problems) -> list[Category]:
    categories: dict[int, str] = {}
    nameless, repeated = [], []
    for entry in entries:
        number = integer(entry.get("id")) if isinstance(entry, dict) else None
        if number is None or not is_name(entry.get("name")):
            nameless.append(f"category {short(entry)}")
        elif number in categories:
            repeated.append(f"category id {number}: {categories[number]}, {entry['name']}")
        else:
            categories[number] = str(entry["name"])
    if nameless:
        problems.add(path, "categories without an integer id or a name", nameless)
    if repeated:
        problems.add(path, "category ids used more than once", repeated)
    return [Category(id=number, name=categories[number]) for number in sorted(categories)]
