"""Concatenation of the images and boxes of several data sets with common category ids."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.array_types import Floats, Ints
from .coco_data import Category, CocoData
from .federated import Federated, Ragged
from .origins import Origins


def concatenated(parts: Sequence[CocoData], root: Path, names: Sequence[str], unknown: Sequence[Ints]) -> CocoData:
    """Concatenate data sets. File names become relative to a common folder, or absolute for files outside it.

    Image ids stay as they are, unless two images have the same id: then images are numbered from 1.

    Args:
        parts: The data sets, with common category ids.
        root: The common folder.
        names: The name of each data set.
        unknown: For each data set, the ids of the categories that its images are not annotated for.
    """
    categories = {category["id"]: category for part in parts for category in part.categories}
    counts = [len(part) for part in parts]
    offsets = np.concatenate([[0], np.concatenate([np.diff(part.offsets) for part in parts]).cumsum()])
    return CocoData(
        path=Path(", ".join(dict.fromkeys(str(part.path) for part in parts))),
        folder=root,
        categories=[Category(id=number, name=categories[number]["name"]) for number in sorted(categories)],
        image_ids=_unique(np.concatenate([part.image_ids for part in parts])),
        file_names=[_name(part.folder / name, root) for part in parts for name in part.file_names],
        sizes=np.concatenate([part.sizes for part in parts]),
        upright=np.concatenate([part.upright for part in parts]),
        offsets=offsets,
        annotation_ids=_unique(np.concatenate([part.annotation_ids for part in parts])),
        category_ids=np.concatenate([part.category_ids for part in parts]),
        boxes=np.concatenate([part.boxes for part in parts]),
        area=np.concatenate([part.area for part in parts]),
        iscrowd=np.concatenate([part.iscrowd for part in parts]),
        weight=_weights(parts),
        federated=_federated(parts, unknown),
        outlines=_outlines(parts),
        origins=Origins(tuple(names), np.repeat(np.arange(len(parts)), counts), tuple(unknown)),
    )


def _unique(ids: Ints) -> Ints:
    return ids if len(np.unique(ids)) == len(ids) else np.arange(1, len(ids) + 1)


def _name(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path.absolute())


def _weights(parts: Sequence[CocoData]) -> Floats | None:
    weights = [part.weight for part in parts if part.weight is not None]  # of all parts, or of none
    return np.concatenate(weights) if weights else None


def _outlines(parts: Sequence[CocoData]) -> list[Any] | None:
    if all(part.outlines is None for part in parts):
        return None
    return [one for part in parts for one in part.outlines or [None] * len(part.boxes)]


def _federated(parts: Sequence[CocoData], unknown: Sequence[Ints]) -> Federated | None:
    """Concatenate LVIS's lists; images of a data set without lists lack the classes that they have no box of."""
    if all(part.federated is None for part in parts):
        return None
    absent: list[Ints] = []
    partial: list[Ints] = []
    for part, of_part in zip(parts, unknown, strict=True):
        if part.federated is not None:
            absent += map(part.federated.absent.row, range(len(part)))
            partial += map(part.federated.not_exhaustive.row, range(len(part)))
            continue
        ids = np.setdiff1d([category["id"] for category in part.categories], of_part)
        absent += [np.setdiff1d(ids, shown) for shown in np.split(part.category_ids, part.offsets[1:-1])]
        partial += [np.zeros(0, np.int64)] * len(part)
    return Federated(Ragged.of(absent), Ragged.of(partial))
