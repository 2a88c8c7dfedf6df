"""CSV files with one box in each row, as DeepForest, Kaggle and Roboflow write them."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ...core.array_types import Doubles, Ints
from ...core.errors import nearest
from ..problems import Problems
from .annotations import Annotations, TextPlaces, Wording, numbered_by_name, table_of
from .base import NOT_UTF8, Format, Request, missing_file, not_utf8
from .coco import crowd_of
from .csv_choice import choose_columns
from .csv_columns import SEPARATORS, Columns
from .faults import Faults
from .folders import ImageFinder, image_entries, read_names

LONGEST = 131_072  # characters of a text of several lines: longer ones are quotation marks that are not closed
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
BRACKETS = re.compile(r"[\[\](){}]")
XYWH = Wording(
    file="CSV",
    whole="CSV file",
    box="a box must be x, y, width and height in pixels",
    name="the image's name",
    crowd="iscrowd",
    sized=False,
)
CORNERS = XYWH._replace(box="xmin, ymin, xmax and ymax must be in pixels", xywh=False)


class CSVFormat(Format):
    """CSV: one row for each box, with the columns of DeepForest, Kaggle or Roboflow; the separator is recognised.

    Columns are found by their names, in any order: the image (``image_path``, ``filename``, ``image_id``), the class
    (``label``, ``class``), and the box (``xmin, ymin, xmax, ymax``, ``x, y, w, h``, or ``bbox`` with four numbers in
    brackets: x, y, width, height). A row without coordinates, or with four zeros, stands for an image without boxes.
    Class ids are numbers from 1, in the order of ``classes.txt`` beside the file, or else in alphabetical order.

    Args:
        names: Class names in the order of their ids. Default: ``classes.txt``, or else the names of all rows. A single
            name is given to all boxes of a file without a column of classes.
    """

    def __init__(self, names: Sequence[str] | None = None) -> None:
        super().__init__()
        self.names = None if names is None else list(names)

    def recognises(self, path: Path) -> bool:
        """Return whether a file is called ``*.csv`` or ``*.tsv``."""
        return path.is_file() and path.suffix.lower() in (".csv", ".tsv")

    def read(self, request: Request, problems: Problems) -> Annotations | None:
        """Read one file."""
        text = _text(request.path, problems)
        if text is None:
            return None
        names = self.names or read_names(request.path.parent, problems)
        with _fields_of_any_length(text):
            columns = Columns.of(text, request, names, problems)
            return None if columns is None else _Reader(columns, names, request, problems).read(text)

    def write(self, splits: Mapping[str, Annotations], folder: Path) -> list[str]:
        """Write ``SPLIT.csv`` with DeepForest's columns, and ``classes.txt``."""
        from .csv_writer import write_csv

        return write_csv(splits, folder)


@contextmanager
def _fields_of_any_length(text: str) -> Iterator[None]:
    """Let Python's reader accept long fields, such as masks; its limit holds for the whole process."""
    before = csv.field_size_limit()
    csv.field_size_limit(max(before, len(text)))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _text(path: Path, problems: Problems) -> str | None:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        problems.add(path, missing_file(path))
    except UnicodeDecodeError as error:
        problems.add(path, not_utf8(error), cure=NOT_UTF8)
    except OSError as error:
        problems.add(path, f"cannot be read: {error}")
    return None


class _Reader:
    """A reader of the rows of one file."""

    def __init__(self, columns: Columns, names: Sequence[str] | None, request: Request, problems: Problems) -> None:
        self.columns, self.names, self.request, self.problems = columns, names, request, problems
        self.faults = Faults()
        self.folder = request.images or request.path.parent
        self.finder = ImageFinder(self.folder, XYWH)
        self.image_names: dict[str, int] = {}  # the index of each image as written
        self.sizes: dict[tuple[int, int, int], int] = {}  # image, width and height: the first line that has them

    def read(self, text: str) -> Annotations:
        """Read all rows."""
        chosen = choose_columns(self.columns, self._fields(text), self.finder, self.names)
        columns = self.columns = chosen.columns
        chosen.report(self.request.path, self.problems)
        kept: list[tuple[int, str, float, float, float, float, float, int, int]] = []
        for line, last, fields in self._fields(text):
            if not any(fields):
                continue
            if len(fields) != columns.width:
                self._note_width(line, last, fields)
                continue
            written = fields[columns.image].strip()
            if not written:
                self.faults.add("rows without an image", "dropped", f"line {line}")
                continue
            index = self.image_names.setdefault(written, len(self.image_names))
            if columns.size:
                width, height = (_whole(fields[position]) for position in columns.size)
                if width is not None and height is not None:
                    self.sizes.setdefault((index, width, height), line)
            box = self._numbers(fields, line)
            if box is None:
                continue
            label = fields[columns.label].strip() if columns.label >= 0 else (self.names or [""])[0]
            if not label or label.lower() == "nan":  # as programs write an empty cell
                self.faults.add("rows without a class", "dropped", f"line {line}: {written}")
                continue
            weight = _number(fields[columns.weight]) if columns.weight >= 0 else 1.0
            kept.append((index, label, *box, weight, line, self._crowd(fields, line)))
        return self._table(self._of_known_classes(kept))

    def _crowd(self, fields: Sequence[str], line: int) -> int:
        """Return 1 for a box that is a region to ignore, by the marks of the file and the one that the user names."""
        marked = 0
        for position in (*self.columns.crowd, self.columns.ignore):
            text = fields[position].strip() if position >= 0 else ""
            if text and text.lower() != "nan":
                value = crowd_of(text)
                if value is None:
                    named = position == self.columns.ignore
                    what = f"values of {self.request.ignore_key} (ignore_key)" if named else "marks of crowds"
                    repair = "" if named else "read as 0"
                    self.faults.add(f"{what} that are neither 0 nor 1", repair, f"line {line}: {text[:60]}", "0 or 1")
                marked |= value or 0
        return marked

    def _fields(self, text: str) -> Iterator[tuple[int, int, list[str]]]:
        """Yield first line, last line and fields of each row after the header."""
        reader = csv.reader(io.StringIO(text), delimiter=self.columns.separator)
        try:
            next(reader, None)
            line = reader.line_num
            for fields in reader:
                yield line + 1, reader.line_num, fields
                line = reader.line_num
        except csv.Error as error:
            cure = "save the table as 'CSV UTF-8' again"
            self.problems.add(self.request.path, f"line {reader.line_num} cannot be read: {error}", cure=cure)

    def _note_width(self, line: int, last: int, fields: Sequence[str]) -> None:
        detail = f"{len(fields)} columns, the header has {self.columns.width}"
        if last == line:
            what = "rows with a wrong number of columns"
            self.faults.add(what, "dropped", f"line {line}: {detail}", self._cure(fields))
            return
        cure = "close all quotation marks"
        longest = max(map(len, fields))
        if longest > LONGEST:  # most of the file is lost
            what = f"lines {line} to {last} cannot be read: they are one text of {longest:,} characters"
            self.problems.add(self.request.path, what, cure=cure)
            return
        what = "rows of several lines, with a wrong number of columns"
        self.faults.add(what, "all of their lines are dropped", f"lines {line} to {last}: {detail}", cure)

    def _cure(self, fields: Sequence[str]) -> str:
        others = [mark for mark in SEPARATORS if mark != self.columns.separator and mark in "".join(fields)]
        mark = {",": "commas", ";": "semicolons", "\t": "tabs"}
        if others and len(fields) < self.columns.width:
            return (
                f"the header is separated by {mark[self.columns.separator]}: these rows seem to use {mark[others[0]]}"
            )
        return "put quotes around texts that contain the separator"

    def _numbers(self, fields: Sequence[str], line: int) -> tuple[float, float, float, float] | None:
        """Return the four numbers of a row; None if it stands for an image without boxes, or is faulty."""
        box = self.columns.box
        if len(box) > 1:
            texts = [fields[position] for position in box]
            if self.columns.separator != "," and any(DECIMAL_COMMA.fullmatch(text.strip()) for text in texts):
                detail = f"line {line}: {', '.join(map(repr, texts))}"
                self.faults.add("boxes with decimal commas", "read", detail, "write decimals with a point")
                texts = [text.replace(",", ".") if DECIMAL_COMMA.fullmatch(text.strip()) else text for text in texts]
        else:
            texts = BRACKETS.sub(" ", fields[box[0]]).replace(",", " ").split()
        try:
            a, b, c, d = map(float, texts)
        except ValueError:
            if not any(text.strip() for text in texts):
                return None
            shown = ", ".join(texts) if len(box) > 1 else fields[box[0]]
            cure = "write decimals with a point" if any("," in text for text in texts) else ""
            self.faults.add("boxes that are not four numbers", "dropped", f"line {line}: {shown}", cure)
            return None
        return None if a == b == c == d == 0 or all(np.isnan((a, b, c, d))) else (a, b, c, d)

    def _of_known_classes(self, rows: list[Any]) -> list[Any]:
        if self.names is None:
            return rows
        known = set(self.names)
        cure = "write one of the classes of classes.txt or of the argument names, or add the class there"
        for row in rows:
            if row[1] not in known:
                detail = f"line {row[7]}: {row[1]}{nearest(row[1], known)}"
                self.faults.add("rows of unknown classes", "dropped", detail, cure)
        return [row for row in rows if row[1] in known]

    def _table(self, rows: list[Any]) -> Annotations:
        written = list(self.image_names)
        found = [self.finder.find(name, any_suffix=True) or name for name in written]
        order = sorted(range(len(found)), key=lambda index: found[index])
        merged: dict[str, int] = {}
        ids = np.zeros(len(found), np.int64)
        for index in order:  # several spellings can mean one image
            ids[index] = merged.setdefault(found[index], len(merged) + 1)
        names = list(self.names) if self.names else sorted({row[1] for row in rows})
        numbers = {name: number for number, name in enumerate(names, start=1)}
        image_ids: Ints = ids[[row[0] for row in rows]] if rows else np.zeros(0, np.int64)
        by_image = np.argsort(image_ids, kind="stable")
        classes = np.array([numbers[row[1]] for row in rows], np.int64)[by_image]
        values: Doubles = np.array([row[2:6] for row in rows], np.float64).reshape(-1, 4)[by_image]
        lines = np.array([row[7] for row in rows], np.int64)[by_image]
        if self.columns.corners:
            values = np.concatenate([values[:, :2], values[:, 2:] - values[:, :2]], axis=1)
        weights = None
        if self.request.weight_key is not None:
            weights = np.array([row[6] for row in rows], np.float64)[by_image]
        table = table_of(image_ids[by_image], classes, values, weights)
        table["iscrowd"] = np.array([row[8] for row in rows], np.int64)[by_image]
        entries = image_entries(list(merged))
        self._set_sizes(entries, ids)
        self.finder.report(self.request.path, self.problems)
        self.faults.report(self.request.path, self.problems)
        return Annotations(
            path=self.request.path,
            images=entries,
            annotations=table,
            categories=numbered_by_name(names),
            weight_key=self.request.weight_key,
            folder=self.folder,
            by_name=self.names is None,
            place=TextPlaces([self.request.path.name], np.zeros(len(rows), np.int64), lines),
            wording=CORNERS if self.columns.corners else XYWH,
        )

    def _set_sizes(self, entries: list[dict[str, Any]], ids: Ints) -> None:
        for (index, width, height), line in self.sizes.items():
            entry = entries[ids[index] - 1]
            first = entry.setdefault("width", width), entry.setdefault("height", height)
            if first != (width, height):
                detail = f"line {line}: {entry['file_name']} is {width} x {height}, and {first[0]} x {first[1]} before"
                cure = "write the size of the image file in each of its rows, and boxes in its pixels"
                what, repair = "images with several sizes", "the size of their first row is used"
                self.faults.add(what, repair, detail, cure)


def _whole(text: str) -> int | None:
    number = _number(text)
    return int(number) if number.is_integer() else None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
