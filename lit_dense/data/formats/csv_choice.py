"""The choice among columns of a CSV file that can all be the image or the class, and the report about it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..problems import KEPT, Problems
from .csv_columns import Columns
from .folders import ImageFinder

SPLITS = {"train", "training", "trn", "val", "valid", "validation", "eval", "dev", "test", "testing", "trainval"}
SAMPLE = 200  # rows whose images are looked for


class Choice(NamedTuple):
    """Columns, and what is doubtful about them.

    Args:
        columns: The columns to read.
        doubts: Kind, details and cure of each doubt.
    """

    columns: Columns
    doubts: list[tuple[str, list[str], str]]

    def report(self, path: Path, problems: Problems) -> None:
        """Report the doubts.

        Args:
            path: The file.
            problems: The doubts are added to it.
        """
        for what, details, cure in self.doubts:
            problems.add(path, what, details, repair=KEPT, cure=cure)


def choose_columns(
    columns: Columns,
    rows: Iterable[tuple[int, int, list[str]]],
    finder: ImageFinder,
    names: Sequence[str] | None,
) -> Choice:
    """Choose the columns of the image and the class where several have fitting names; other files are not read.

    The image is the column whose values are files. The class is the column of names instead of numbers, if both say
    the same.

    Args:
        columns: The columns by name alone.
        rows: First line, last line and fields of each row.
        finder: The images of the folder.
        names: The known classes.
    """
    if len(columns.images) < 2 and len(columns.labels) < 2 and columns.split < 0:
        return Choice(columns, [])
    table = [fields for _, _, fields in rows if len(fields) == columns.width]
    doubts = []
    if len(columns.images) > 1:
        columns, doubt = _image(columns, table, finder)
        doubts += doubt
    if len(columns.labels) > 1:
        columns, doubt = _label(columns, table, names)
        doubts += doubt
    if columns.split >= 0:
        counts = Counter(text for row in table if (text := row[columns.split].strip()))
        if len(counts) > 1 and any(text.lower() in SPLITS for text in counts):
            details = [f"{text}: {count:,} rows" for text, count in counts.most_common()]
            cure = "write a file for each split, give them as train_annotations, val_annotations and test_annotations"
            doubts.append(("splits in one file, all of whose rows are used", details, cure))
    return Choice(columns, doubts)


def _image(
    columns: Columns, table: list[list[str]], finder: ImageFinder
) -> tuple[Columns, list[tuple[str, list[str], str]]]:
    found = {position: [finder.seek(row[position].strip()) for row in table[:SAMPLE]] for position in columns.images}
    best = max(found, key=lambda position: sum(name is not None for name in found[position]))
    others = [
        position
        for position, files in found.items()
        if any(a and b and a != b for a, b in zip(files, found[best], strict=True))
    ]
    columns = columns._replace(image=best)
    return columns, _doubt("the image", columns.images, best, others, table)


def _label(
    columns: Columns, table: list[list[str]], names: Sequence[str] | None
) -> tuple[Columns, list[tuple[str, list[str], str]]]:
    filled = [row for row in table if row[columns.label].strip()]
    values = {position: [row[position].strip() for row in filled] for position in columns.labels}
    first = columns.label
    others = [position for position in values if not _one_to_one(values[first], values[position])]
    same = [position for position in values if position not in others]
    known = None if names is None else set(names)
    best = next((p for p in same if known is not None and known.issuperset(values[p])), None)
    if best is None:
        best = next((p for p in same if known is None and not any(map(_is_number, values[p]))), first)
    columns = columns._replace(label=best)
    return columns, _doubt("the class", columns.labels, best, others, table)


def _one_to_one(first: list[str], second: list[str]) -> bool:
    return len(set(zip(first, second, strict=True))) == len(set(first)) == len(set(second))


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).lstrip("-").isdigit()


def _doubt(
    role: str, names: dict[int, str], best: int, others: list[int], table: list[list[str]]
) -> list[tuple[str, list[str], str]]:
    if not others:
        return []
    details = []
    for position in (best, *others):
        values = list(dict.fromkeys(row[position].strip() for row in table))
        shown = ", ".join(value[:30] for value in values[:3])
        details.append(
            f"{names[position]}, {'read' if position == best else 'not read'}: {len(values)} values: {shown}"
        )
    cure = f"remove or rename the columns that are not {role}"
    return [(f"columns that can all be {role}", details, cure)]
