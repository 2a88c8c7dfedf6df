"""A fast decoder of regular COCO files into typed records, several times faster than parsing entry by entry."""

from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import UNSET, UnsetType

from ..coco_data import Category

IMAGE_KEYS = ("id", "file_name", "width", "height", "neg_category_ids", "not_exhaustive_category_ids")


class _Image(msgspec.Struct, gc=False):
    id: int
    file_name: str | UnsetType = UNSET
    coco_url: str | UnsetType = UNSET
    width: int | UnsetType = UNSET
    height: int | UnsetType = UNSET
    neg_category_ids: list[int] | UnsetType = UNSET
    not_exhaustive_category_ids: list[int] | UnsetType = UNSET


class _Annotation(msgspec.Struct, gc=False):
    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float = float("nan")
    iscrowd: int = 0


class _Category(msgspec.Struct):
    id: int
    name: str


Content = tuple[list[dict[str, Any]], npt.NDArray[np.void], list[Category], list[Any] | None]
"""Images, a table of annotations, categories by ascending id, and masks or None, as in ``Annotations``."""


def decode_coco(
    path: Path,
    table: np.dtype[np.void],
    weight_key: str | None,
    ignore_key: str | None = None,
    masks: bool = False,
) -> Content | None:
    """Decode a COCO file in which every entry has the expected keys and types.

    Other contents, and masks if they are not needed, are skipped without creating objects.

    Args:
        path: The file.
        table: The dtype of the annotations' rows.
        weight_key: The key of annotations with a weight; 1 for those without it. Default: no weights are read.
        ignore_key: The key of annotations that marks ignore regions, as ``iscrowd`` does. Default: none is read.
        masks: Whether to keep the masks.

    Returns:
        The content; None if anything is irregular, from a missing file to a missing key. The caller then parses the
        file entry by entry to report the problems.
    """
    annotation: Any = _Annotation
    fields: list[Any] = []
    if weight_key is not None:
        fields.append(("weight", float, msgspec.field(default=1.0, name=weight_key)))
    if ignore_key is not None:
        fields.append(("ignore", bool | int, msgspec.field(default=0, name=ignore_key)))
    if masks:
        fields.append(("segmentation", Any, None))
    if fields:
        annotation = msgspec.defstruct("_Extended", fields, bases=(_Annotation,), gc=False)
    schema = msgspec.defstruct(
        "_Coco", [("images", list[_Image]), ("annotations", list[annotation]), ("categories", list[_Category])]
    )
    try:
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
            document: Any = msgspec.json.decode(content, type=schema)
        rows = np.empty(len(document.annotations), table)
        for name in table.names or ():
            values = np.array([getattr(row, name) for row in document.annotations])
            rows[name] = values.reshape(rows[name].shape)
        if ignore_key is not None:
            rows["iscrowd"] |= np.array([row.ignore for row in document.annotations], np.int64)
    except (OSError, msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        return None
    images = [_as_dict(image) for image in document.images]
    names = {category.id: category.name for category in document.categories}
    if (
        len(names) < len(document.categories)
        or not all(map(str.strip, names.values()))
        or (rows["iscrowd"] | 1 != 1).any()
    ):
        return None
    segmentations = [row.segmentation for row in document.annotations] if masks else None
    return images, rows, [Category(id=number, name=names[number]) for number in sorted(names)], segmentations


def _as_dict(image: _Image) -> dict[str, Any]:
    kept = {key: value for key in IMAGE_KEYS if (value := getattr(image, key)) is not UNSET}
    if image.coco_url is not UNSET:
        kept.setdefault("file_name", file_of(image.coco_url))
    return kept


def file_of(coco_url: object) -> str:
    """Return folder and file name of an image's URL; LVIS names its images only by URL."""
    return "/".join(str(coco_url).split("/")[-2:])
