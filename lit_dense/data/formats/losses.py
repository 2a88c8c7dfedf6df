"""Contents that a format cannot hold, found and described before annotations are written."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...core.array_types import Bools
from ...core.errors import UsageError
from ..file_names import clash, ignores_case
from .annotations import Annotations
from .folders import stem_of

LISTS = ("neg_category_ids", "not_exhaustive_category_ids")


class Losses:
    """The contents of all splits that a format cannot hold.

    Args:
        splits: Checked annotations of each split.
    """

    def __init__(self, splits: Mapping[str, Annotations]) -> None:
        self._splits = splits
        self.lines: list[str] = []

    def _count(self, what: str, numbers: Sequence[int]) -> None:
        if total := int(sum(numbers)):
            self.lines.append(f"{what}: {total:,}")

    def crowds(self) -> None:
        """Note crowd boxes, which the writer leaves out."""
        numbers = [int(split.annotations["iscrowd"].sum()) for split in self._splits.values()]
        self._count("crowd boxes (iscrowd, difficult), which are left out", numbers)

    def weights(self) -> None:
        """Note weights of boxes."""
        given = [split for split in self._splits.values() if split.weight_key is not None]
        self._count("weights of boxes", [int((split.annotations["weight"] != 1).sum()) for split in given])

    def masks(self, polygons: bool) -> None:
        """Note masks that are written as boxes.

        Args:
            polygons: Whether the format holds a single polygon.
        """
        what = "masks of several parts or run-length encoded" if polygons else "polygons and masks"
        kept = single_polygon if polygons else (lambda mask: None)
        numbers = [
            sum(bool(mask) and kept(mask) is None for mask in split.segmentations or ())
            for split in self._splits.values()
        ]
        self._count(f"{what}, which are written as boxes", numbers)

    def areas(self) -> None:
        """Note areas that differ from those of the boxes."""
        self._count("areas of masks", [int(has_own_area(split).sum()) for split in self._splits.values()])

    def lists(self) -> None:
        """Note LVIS's lists of classes."""
        numbers = [sum(any(key in entry for key in LISTS) for entry in split.images) for split in self._splits.values()]
        self._count("images with LVIS's lists of classes", numbers)

    def ids(self, first_category: int) -> None:
        """Note ids and orders that a reader would not give again.

        Args:
            first_category: The id that the reader gives to the first class.
        """
        images, boxes, categories = False, False, False
        for split in self._splits.values():
            names = [entry["file_name"] for entry in split.images]
            ids = [entry["id"] for entry in split.images]
            images |= names != sorted(names) or ids != list(range(1, len(ids) + 1))
            boxes |= split.annotations["id"].tolist() != list(range(1, len(split.annotations) + 1))
            found = [category["id"] for category in split.categories]
            categories |= found != list(range(first_category, first_category + len(found)))
        if images:
            self.lines.append("image ids and the order of images: images are numbered from 1, sorted by name")
        if boxes:
            self.lines.append("annotation ids: boxes are numbered from 1, sorted by image")
        if categories:
            self.lines.append(f"category ids: classes are numbered from {first_category}, in the same order")


def has_own_area(split: Annotations) -> Bools:
    """Return whether an annotation has an area that differs from that of its box, bool [N]."""
    area, box = split.annotations["area"], split.annotations["bbox"][:, 2:].prod(1)
    with np.errstate(invalid="ignore"):
        return np.asarray((area > 0) & (np.abs(area - box) > 0.005 * box + 0.5))


def single_polygon(mask: Any) -> list[float] | None:
    """Return the polygon of a mask that is a single polygon; None for other masks."""
    if isinstance(mask, list) and len(mask) == 1 and isinstance(mask[0], list) and len(mask[0]) >= 6:
        points: list[float] = mask[0]
        return points
    return None


def check_writable(splits: Mapping[str, Annotations], folder: Path, stems: bool, sizes: bool) -> None:
    """Check that a format can name the files of all images.

    Args:
        splits: Checked annotations of each split.
        folder: An existing folder, on whose file system they will be written.
        stems: Whether the format has a file for each image, with the name of the image and another suffix.
        sizes: Whether the format holds the size of an image, and so tells whether boxes refer to the rotated image.

    Raises:
        UsageError: Two images would have one file, or boxes refer to images before their EXIF rotation.
    """
    folds = ignores_case(folder)
    for split, content in splits.items():
        names = [entry["file_name"] for entry in content.images]
        pair = clash(names, lambda name: stem_of(name).casefold() if folds else stem_of(name)) if stems else None
        if pair is not None:
            raise UsageError(
                f"{split}: {' and '.join(pair)} would have one file of boxes, because it has the name of the image "
                "with another suffix: rename one of them."
            )
        for entry in content.images:
            if not sizes and entry.get("before_rotation"):
                raise UsageError(
                    f"{split}: the boxes of {entry['file_name']} refer to the image before its EXIF rotation, which "
                    "this format cannot say: rotate the pixels and the boxes first."
                )


def check_names(splits: Mapping[str, Annotations]) -> None:
    """Check that text files, one name a line, can hold the names of all classes.

    Args:
        splits: Checked annotations of each split.

    Raises:
        UsageError: A name has spaces at its ends or line breaks.
    """
    for category in next(iter(splits.values())).categories:
        name = category["name"]
        if name != name.strip() or len(name.splitlines()) > 1:
            raise UsageError(
                f"This format cannot hold the name of the class {name!r}: spaces at its ends and line breaks would be "
                "lost. Rename it first."
            )


def plain(value: float) -> str:
    """Format pixels with at most six decimals, which undo the rounding errors of sums and differences."""
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def boxes_by_image(split: Annotations) -> list[range]:
    """Return the rows of each image, in the order of images; rows are sorted by image."""
    ids = np.array([entry["id"] for entry in split.images], np.int64)
    order = np.argsort(ids)
    index = order[np.searchsorted(ids, split.annotations["image_id"], sorter=order)]
    ends = np.cumsum(np.bincount(index, minlength=len(ids))).tolist()
    return [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]
