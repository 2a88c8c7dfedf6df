"""File formats of predictions: COCO results, YOLO, Pascal VOC, CSV and Parquet."""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple
from xml.sax.saxutils import escape

from ..core.errors import UsageError
from ..core.optional_package import optional_package
from ..data.label_map import unique_names

FormatName = Literal["coco", "yolo", "voc", "csv", "parquet"]
SUFFIXES = {"coco": ".json", "csv": ".csv", "parquet": ".parquet"}
"""Suffix of the formats that are one file; the others are a folder."""
PLACES = {"yolo": ("labels", "*.txt"), "voc": ("annotations", "*.xml")}
"""Folder and pattern of the files of the other formats."""
CLASSES = "classes.txt"
COLUMNS = ("image_path", "xmin", "ymin", "xmax", "ymax", "label", "score", "image_id")
"""Columns of a table of predictions, one row per detection. The first six are those of CSV annotations."""
DIGITS = 6  # decimals of a share of the image
LONGEST = 100  # most characters of a folder's name


class ImagePredictions(NamedTuple):
    """The detections of one image.

    Args:
        image_id: The image's id.
        file_name: The image's file name; None if unknown.
        size: Height and width of the image in pixels.
        results: The detections as COCO results.
    """

    image_id: int
    file_name: str | None
    size: tuple[int, int]
    results: list[dict[str, Any]]


class Classes:
    """Index and name of each class by category id.

    Args:
        categories: ``id`` and ``name`` of each label; None if unknown: then ids are labels and names their numbers.
    """

    def __init__(self, categories: Sequence[dict[str, Any]] | None) -> None:
        self.names = unique_names(categories) if categories else []
        self._index = {category["id"]: index for index, category in enumerate(categories or [])}

    def index(self, category_id: int) -> int:
        """Return the label of a category."""
        return self._index[category_id] if self.names else category_id

    def name(self, category_id: int) -> str:
        """Return the name of a category."""
        return self.names[self._index[category_id]] if self.names else str(category_id)


def check_format(name: FormatName, path: str | None) -> None:
    """Check that a format can be written, and that a path does not have the suffix of another format.

    Args:
        name: Name of the format.
        path: The path; None for the default.

    Raises:
        UsageError: If a package is missing, or the path has the suffix of another format.
    """
    if name == "parquet":
        optional_package("pyarrow", "PredictionWriter: format=parquet")
    suffix = Path(path or "").suffix.lower()
    other = next((format for format, own in SUFFIXES.items() if own == suffix and format != name), None)
    if other is not None:
        raise UsageError(
            f"PredictionWriter: path={path} has the suffix of format={other}, but format={name} is written: choose "
            f"another path, or --predictions.format={other}."
        )


def find_other_file(name: FormatName, path: Path) -> Path | None:
    """Return an existing file that would be replaced and does not contain predictions, such as annotations.

    Args:
        name: Name of the format.
        path: The file, or the folder of YOLO and Pascal VOC.

    Returns:
        The first such file; None if there is none.
    """
    if name in SUFFIXES:
        return path if path.is_file() and path.stat().st_size and not _has_predictions(name, path) else None
    folder, pattern = PLACES[name]
    files = (file for file in sorted((path / folder).glob(pattern)) if file.name != CLASSES)
    return next((file for file in files if not _has_predictions(name, file)), None)


def _has_predictions(name: FormatName, file: Path) -> bool:
    """Whether a file looks like one of predictions: its objects have scores."""
    if name == "parquet":
        with file.open("rb") as opened:
            return opened.read(4) == b"PAR1"
    text = file.read_text(encoding="utf-8", errors="replace")
    if name == "coco":  # annotations are an object
        return text.lstrip().startswith("[")
    if name == "csv":
        return text.partition("\n")[0].strip() == ",".join(COLUMNS)
    if name == "voc":
        return text.count("<score>") >= text.count("<object>")
    return all(len(line.split()) in (0, 6) for line in text.splitlines())  # annotations have 5 numbers, or polygons


def write_predictions(name: FormatName, path: Path, images: Sequence[ImagePredictions], classes: Classes) -> None:
    """Write predictions; folders are created.

    Args:
        name: Name of the format.
        path: The file, or the folder of YOLO and Pascal VOC.
        images: The predictions, by ascending image id.
        classes: The classes.

    Raises:
        OSError: If a file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    WRITERS[name](path, images, classes)


def table_rows(images: Sequence[ImagePredictions], classes: Classes) -> list[tuple[Any, ...]]:
    """Return the rows of a table with :data:`COLUMNS`."""
    rows = []
    for image in images:
        for result in image.results:
            x, y, width, height = result["bbox"]
            corners = (round(v, 3) for v in (x, y, x + width, y + height))
            name = classes.name(result["category_id"])
            rows.append((image.file_name or "", *corners, name, result["score"], image.image_id))
    return rows


def folder_names(classes: Sequence[str]) -> list[str]:
    """Return the name of a folder for each class, without characters that file systems refuse.

    Names that would be equal, in upper or lower case, end in the label.

    Args:
        classes: Name of each class.
    """
    names = [re.sub(r"[^\w .()+-]", "_", name)[:LONGEST].strip(" .") or "class" for name in classes]
    counts = Counter(name.casefold() for name in names)
    return [f"{name}_{label}" if counts[name.casefold()] > 1 else name for label, name in enumerate(names)]


def _write_coco(path: Path, images: Sequence[ImagePredictions], classes: Classes) -> None:
    path.write_text(json.dumps([result for image in images for result in image.results]))


def _write_csv(path: Path, images: Sequence[ImagePredictions], classes: Classes) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(table_rows(images, classes))


def _write_parquet(path: Path, images: Sequence[ImagePredictions], classes: Classes) -> None:
    arrow = optional_package("pyarrow", "PredictionWriter: format=parquet")
    parquet = optional_package("pyarrow.parquet", "PredictionWriter: format=parquet")
    types = (arrow.string(), *[arrow.float64()] * 4, arrow.string(), arrow.float64(), arrow.int64())
    rows = table_rows(images, classes)
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(COLUMNS)
    arrays = [arrow.array(list(column), kind) for column, kind in zip(columns, types, strict=True)]
    parquet.write_table(arrow.table(dict(zip(COLUMNS, arrays, strict=True))), path)


def _write_yolo(path: Path, images: Sequence[ImagePredictions], classes: Classes) -> None:
    folder = path / PLACES["yolo"][0]
    folder.mkdir(parents=True, exist_ok=True)
    _write_classes(path, classes)
    for image, stem in zip(images, _stems(images), strict=True):
        height, width = image.size
        lines = []
        for result in image.results:
            x, y, w, h = result["bbox"]
            shares = ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height)
            numbers = " ".join(f"{share:.{DIGITS}f}" for share in shares)
            lines.append(f"{classes.index(result['category_id'])} {numbers} {result['score']}\n")
        (folder / f"{stem}.txt").write_text("".join(lines), encoding="utf-8")


def _write_voc(path: Path, images: Sequence[ImagePredictions], classes: Classes) -> None:
    folder = path / PLACES["voc"][0]
    folder.mkdir(parents=True, exist_ok=True)
    _write_classes(folder, classes)
    for image, stem in zip(images, _stems(images), strict=True):
        height, width = image.size
        objects = []
        for result in image.results:
            x, y, w, h = result["bbox"]
            corners = zip(("xmin", "ymin", "xmax", "ymax"), (x, y, x + w, y + h), strict=True)
            box = "".join(f"<{key}>{round(value, 3)}</{key}>" for key, value in corners)
            objects.append(
                f"  <object>\n    <name>{escape(classes.name(result['category_id']))}</name>\n"
                f"    <score>{result['score']}</score>\n    <bndbox>{box}</bndbox>\n  </object>\n"
            )
        name = PurePosixPath(image.file_name or stem).name
        text = (
            f"<annotation>\n  <filename>{escape(name)}</filename>\n"
            f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n"
            f"{''.join(objects)}</annotation>\n"
        )
        (folder / f"{stem}.xml").write_text(text, encoding="utf-8")


def _write_classes(folder: Path, classes: Classes) -> None:
    if classes.names:
        (folder / CLASSES).write_text("".join(f"{name}\n" for name in classes.names), encoding="utf-8")


def _stems(images: Sequence[ImagePredictions]) -> list[str]:
    """Return a file name for each image, without suffix: the image's own, after its id if two images share it."""
    stems = [Path(image.file_name or str(image.image_id)).stem for image in images]
    counts = Counter(stem.casefold() for stem in stems)
    with_ids = [f"{image.image_id}_{stem}" for image, stem in zip(images, stems, strict=True)]
    names = [w if counts[stem.casefold()] > 1 else stem for w, stem in zip(with_ids, stems, strict=True)]
    is_unique = len({name.casefold() for name in names}) == len(names)  # another image may have such a name
    return names if is_unique else with_ids


WRITERS: dict[str, Callable[[Path, Sequence[ImagePredictions], Classes], None]] = {
    "coco": _write_coco,
    "yolo": _write_yolo,
    "voc": _write_voc,
    "csv": _write_csv,
    "parquet": _write_parquet,
}
