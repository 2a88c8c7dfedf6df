"""A text file with a row for each tree: image, x, y, width and height in pixels, separated by spaces."""

from pathlib import Path

import numpy as np

from lit_dense.formats import Annotations, Format, Problems, Request, TextPlaces, Wording, table_of

Row = tuple[str, float, float, float, float]


class TreeRows(Format):
    """Rows of image, x, y, width and height; all boxes have one class.

    Args:
        name: Name of the class.
    """

    def __init__(self, name: str = "tree") -> None:
        super().__init__()
        self.name = name

    def recognises(self, path: Path) -> bool:
        """Return whether a file is called ``*.trees``."""
        return path.suffix == ".trees"

    def read(self, request: Request, problems: Problems) -> Annotations | None:
        """Read the rows of one file; faulty rows are reported with their line."""
        if not request.path.is_file():
            problems.add(request.path, "no such file")
            return None
        if request.weight_key is not None:
            problems.add(request.path, f"no weight {request.weight_key!r}: rows hold no weights")
        rows, lines, faults = [], [], []
        for number, line in enumerate(request.path.read_text(errors="replace").splitlines(), start=1):
            if (row := _row(line)) is None:
                faults.append(f"{request.path.name}, line {number}: {line[:60]!r}")
            else:
                rows.append(row)
                lines.append(number)
        if faults:
            problems.add(request.path, "rows without an image and four numbers", faults, repair="dropped")
        names = sorted({row[0] for row in rows})  # a fixed order: it sets image ids and the order of training
        image_ids = np.array([names.index(row[0]) + 1 for row in rows], np.int64)
        return Annotations(
            path=request.path,
            images=[{"id": number, "file_name": name} for number, name in enumerate(names, start=1)],
            annotations=table_of(image_ids, np.ones(len(rows), np.int64), np.array([row[1:] for row in rows], float)),
            categories=[{"id": 1, "name": self.name}],
            folder=request.images or request.path.parent,
            place=TextPlaces([request.path.name], np.zeros(len(rows), np.int64), np.array(lines, np.int64)),
            wording=Wording(file="row", box="a row must be image, x, y, width and height in pixels", sized=False),
        )


def _row(line: str) -> Row | None:
    """Return the fields of a line; None if it is faulty."""
    try:
        image, *numbers = line.split()
        x, y, width, height = map(float, numbers)
    except ValueError:
        return None
    return image, x, y, width, height
