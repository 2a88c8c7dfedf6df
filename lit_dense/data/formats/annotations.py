"""The neutral table behind all formats: images, boxes and categories as written in the annotation files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...core.array_types import Doubles, Ints
from ..coco_data import Category

NO_ID = -(2**63)  # replaces an annotation id that is missing or not an integer

TABLE = np.dtype(
    [
        ("id", "<i8"),
        ("image_id", "<i8"),
        ("category_id", "<i8"),
        ("bbox", "<f8", 4),
        ("area", "<f8"),
        ("iscrowd", "<i8"),
    ]
)
"""A row of the table: ``bbox`` is x, y, width and height; ``area`` is NaN if the file has none."""
WEIGHTED_TABLE = np.dtype([*((name, TABLE[name]) for name in TABLE.names or ()), ("weight", "<f8")])
"""A row of the table with the weight of the box, NaN if it is not a number."""


class Wording(NamedTuple):
    """A format's words in messages.

    Args:
        file: Short name of an annotation file.
        whole: Full name of an annotation file.
        box: Sentence that says how boxes are written.
        name: The key of an image's file name.
        crowd: The mark of a box that is neither trained on nor counted; empty if the format has none.
        xywh: Whether boxes are written as x, y, width and height, which can be mistaken for corners or centres.
        pixels: Whether boxes are written in pixels.
        sized: Whether each image should have a width and a height.
        stems: Whether the file of an image's boxes has the image's name with another suffix.
    """

    file: str = "JSON"
    whole: str = "COCO file"
    box: str = "bbox must be x, y, width and height in pixels"
    name: str = "file_name"
    crowd: str = "iscrowd"
    xywh: bool = True
    pixels: bool = True
    sized: bool = True
    stems: bool = False


@dataclass(frozen=True)
class Annotations:
    """The annotations of one split as written; only their form has been checked.

    Args:
        path: The annotation file or folder, for reports.
        images: One dict for each image, with the keys of ``id``, ``file_name``, ``width``, ``height``,
            ``neg_category_ids`` and ``not_exhaustive_category_ids`` that are known; a damaged entry of a COCO file may
            be anything.
        annotations: The boxes as a structured array of the dtype :data:`TABLE` or :data:`WEIGHTED_TABLE`.
        categories: Categories by ascending id.
        weight_key: The key that ``weight`` was read from; None if no weights were read.
        folder: The folder that file names are relative to; None if only the user can know it.
        relative: Whether ``bbox`` and polygons are shares of the image's width and height instead of pixels.
        by_name: Whether the files name classes without ids. The ids are then provisional: they are replaced, so that
            all splits agree.
        place: Returns the place of a row, such as a file and a line; None if annotation ids identify rows.
        segmentations: The mask of each annotation as in a COCO file: polygons, a run-length encoding, or None; None as
            a whole if masks were not read.
        wording: The format's words in messages.
    """

    path: Path
    images: list[Any]
    annotations: npt.NDArray[np.void]
    categories: list[Category]
    weight_key: str | None = None
    folder: Path | None = None
    relative: bool = False
    by_name: bool = False
    place: Callable[[int], str] | None = None
    segmentations: list[Any] | None = None
    wording: Wording = field(default=Wording())

    def with_categories(self, categories: list[Category]) -> "Annotations":
        """Return the same annotations with other categories, which include those of all boxes."""
        return replace(self, categories=categories)


class TextPlaces:
    """Places of annotations in text files: file and line.

    Args:
        files: Names of the files.
        file_indices: Index of each row's file, int64 [N].
        lines: Line of each row, counted from 1, int64 [N].
    """

    def __init__(self, files: Sequence[str], file_indices: Ints, lines: Ints) -> None:
        self.files, self.file_indices, self.lines = files, file_indices, lines

    def __call__(self, row: int) -> str:
        """Return file and line of a row."""
        return f"{self.files[self.file_indices[row]]}, line {self.lines[row]}"


def table_of(image_ids: Ints, category_ids: Ints, bbox: Doubles, weight: Doubles | None = None) -> npt.NDArray[np.void]:
    """Build a table of annotations with ids from 1, without areas and crowds.

    Args:
        image_ids: Image id of each box, int64 [N].
        category_ids: Category id of each box, int64 [N].
        bbox: x, y, width and height, float64 [N, 4].
        weight: Weight of each box, float64 [N]; by default the table has none.
    """
    table = np.zeros(len(image_ids), TABLE if weight is None else WEIGHTED_TABLE)
    table["id"] = np.arange(1, len(table) + 1)
    table["image_id"], table["category_id"], table["area"] = image_ids, category_ids, np.nan
    table["bbox"] = bbox.reshape(-1, 4)
    if weight is not None:
        table["weight"] = weight
    return table


def corners_to_bbox(corners: Doubles) -> Doubles:
    """Convert x1, y1, x2, y2 to x, y, width and height, both [N, 4]."""
    corners = corners.reshape(-1, 4)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def numbered_by_name(names: Sequence[str]) -> list[Category]:
    """Return categories with ids from 1, in the order of the names."""
    return [Category(id=number, name=name) for number, name in enumerate(names, start=1)]
