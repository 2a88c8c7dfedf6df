"""Parsing of the lines of YOLO's label files."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...core.array_types import Doubles, Ints
from ...core.errors import nearest
from ..problems import Problems
from .faults import Faults
from .shifted_ids import shift_of, words_of
from .yolo_keypoints import MOST, meaning_of

SEPARATORS = re.compile(r"[,;|]")
OTHER_SEPARATORS = re.compile(r"[;|]")
DECIMAL_COMMA = re.compile(r"(?<=\d),(?=\d)")
NAMELESS = "class indices without a name"
Values = tuple[int, float, float, float, float]


class LineReader:
    """A parser of label files, which collects rows and faults.

    Args:
        names: The name of each class index.
        masks: Whether to keep polygons.
        keypoints: Whether lines have keypoints behind the box, which are ignored.

    Attributes:
        polygons: x and y of the points of a row's polygon, as a list of one polygon, by row.
    """

    def __init__(self, names: Mapping[int, str], masks: bool = False, keypoints: bool = False) -> None:
        self._names, self._masks, self._keypoints = names, masks, keypoints
        self._classes = {str(number).encode(): number for number in names}
        self._numbers = {name: number for number, name in names.items()}
        self._places: list[tuple[int, int]] = []
        self._rows: list[Values] = []
        self._faults = Faults()
        self._unknown: set[int] = set()
        self._long: list[list[float]] = []
        self._long_places: list[str] = []
        self.polygons: dict[int, list[list[float]]] = {}

    def read(self, index: int, content: bytes, name: str) -> None:
        """Read the lines of one file.

        Args:
            index: Index of the image.
            content: The file's content.
            name: Name of the file, for messages.
        """
        classes, places, rows = self._classes, self._places, self._rows
        for number, line in enumerate(content.splitlines(), start=1):
            parts = line.split()
            if len(parts) == 5:
                try:
                    row = classes[parts[0]], float(parts[1]), float(parts[2]), float(parts[3]), float(parts[4])
                except (KeyError, ValueError):
                    self._read_unusual(index, number, line, name)
                else:
                    places.append((index, number))
                    rows.append(row)
            elif parts:
                self._read_unusual(index, number, line, name)

    def _read_unusual(self, index: int, number: int, line: bytes, name: str) -> None:
        """Read a line that is not five regular columns: a polygon, other separators, or a faulty line."""
        text = line.decode("utf-8-sig", errors="replace").strip()
        where = f"{name}, line {number}"
        parts = self._split(text, where)
        if not parts:
            return
        category = self._category(parts[0], where)
        try:
            values = [float(part) for part in parts[1:]]
        except ValueError:
            self._fault("lines with values that are not numbers", "dropped", f"{where}: {_short(text)}")
            return
        if self._keypoints:
            values = values[:4]
        elif len(values) > 4 and len(self._long) < MOST:
            self._long.append(values)
            self._long_places.append(f"{where}: {_short(text)}")
        polygon = None
        if len(values) >= 6 and len(values) % 2 == 0:
            polygon = values
            x, y = values[::2], values[1::2]
            values = [(min(x) + max(x)) / 2, (min(y) + max(y)) / 2, max(x) - min(x), max(y) - min(y)]
        if len(values) != 4:
            detail = f"{where}: {len(values) + 1} columns, {_short(text)}"
            self._fault("lines with a wrong number of columns", "dropped", detail)
            return
        if category is None:
            return
        if polygon is not None and self._masks:
            self.polygons[len(self._rows)] = [polygon]
        self._places.append((index, number))
        self._rows.append((category, values[0], values[1], values[2], values[3]))

    def _split(self, text: str, where: str) -> list[str]:
        """Split a line; other separators than spaces are reported."""
        if not SEPARATORS.search(text):
            return text.split()
        # decimal commas if spaces or other separators already separate enough columns, else separators
        point = OTHER_SEPARATORS.sub(" ", DECIMAL_COMMA.sub(".", text))
        decimal = len(point.split()) >= 5 and "," not in point
        self._fault("lines with other separators than spaces", "read with them", f"{where}: {_short(text)}")
        return point.split() if decimal else SEPARATORS.sub(" ", text).split()

    def _category(self, text: str, where: str) -> int | None:
        """Return a class index that is written as a decimal number or as a name; None if there is no such class."""
        try:
            number = float(text)
        except ValueError:
            if text in self._numbers:
                self._fault("class names instead of class indices", "read by name", f"{where}: {text}")
                return self._numbers[text]
            hint = nearest(text, self._numbers)
            self._fault("classes that are neither an index nor a known name", "dropped", f"{where}: {text}{hint}")
            return None
        if number in self._names:
            return int(number)
        if number.is_integer():
            self._unknown.add(int(number))
        known = f"there are {len(self._names)} classes, {min(self._names)} to {max(self._names)}"
        self._fault(NAMELESS, "dropped", f"{where}: class {text}, {known}")
        return None

    def _fault(self, what: str, repair: str, detail: str) -> None:
        self._faults.add(what, repair, detail, CURES.get(what, ""))

    def report(self, path: Path, problems: Problems) -> None:
        """Report the faults of all files that were read.

        Args:
            path: The file that the problems are reported for.
            problems: The faults are added to it.
        """
        used = self._unknown and self._unknown | {row[0] for row in self._rows}
        if shift := shift_of(used, set(self._names)):
            word, change = words_of(shift)
            found = f"class indices that are one {word} than those of the names"
            cure = f"the labels use {min(used)} to {max(used)}, the names have {min(self._names)} to {max(self._names)}"
            self._faults.make_error(NAMELESS, found, f"{cure}: {change} each index, or correct the names in data.yaml")
        self._faults.report(path, problems)
        if meaning := meaning_of(self._long):
            what = f"lines that look like {meaning[0]}"
            problems.add(path, what, self._long_places, cure=meaning[1])

    def columns(self) -> tuple[Ints, Ints, Ints, Doubles]:
        """Return image index, line and class of each row [N], and middle x, middle y, width and height [N, 4]."""
        places = np.array(self._places, np.int64).reshape(-1, 2)
        rows = np.array(self._rows, np.float64).reshape(-1, 5)
        return places[:, 0], places[:, 1], rows[:, 0].astype(np.int64), rows[:, 1:]


CURES = {
    "lines with other separators than spaces": "separate the columns by spaces",
    "lines with a wrong number of columns": "a box has 5 columns (class, middle x, middle y, width, height); a polygon "
    "has an odd number of at least 7 (class, then x and y of each point)",
    NAMELESS: "indices count from 0: correct them, or add the names to data.yaml",
    "class names instead of class indices": "write the index of the class in data.yaml, from 0",
}


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
