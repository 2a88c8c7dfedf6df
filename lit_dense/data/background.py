"""Background images: images without annotations, and the share of images without objects in an epoch."""

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..core.array_types import Ints
from ..core.errors import UsageError
from .coco_data import CocoData
from .federated import Federated, Ragged
from .problems import Problems

Order = Callable[[np.random.Generator], Ints]
"""Returns the indices of the images of an epoch."""


def with_background(
    data: CocoData, background: CocoData, others: Iterable[CocoData], listed: Iterable[Path], problems: Problems
) -> CocoData:
    """Append images without objects to a training set.

    Args:
        data: The training set.
        background: Images without boxes; file names are relative to the current folder.
        others: The splits of evaluation that were read.
        listed: Paths of images in the annotation files of other splits.
        problems: Images that are in an annotation file are added to it.
    """
    known = {os.path.realpath(one.folder / name) for one in (data, *others) for name in one.file_names}
    known |= {os.path.realpath(path) for path in listed}
    paths = [os.path.realpath(name) for name in background.file_names]
    if annotated := [name for name, path in zip(background.file_names, paths, strict=True) if path in known]:
        problems.add(
            "background images",
            "background images that are in an annotation file",
            annotated,
            repair="dropped",
            cure="give a folder of images without objects",
        )
    new = np.array([index for index, path in enumerate(paths) if path not in known], np.int64)
    count = len(new)
    return replace(
        data,
        image_ids=np.concatenate([data.image_ids, data.image_ids.max(initial=0) + 1 + np.arange(count)]),
        file_names=[*data.file_names, *(paths[index] for index in new.tolist())],  # absolute: not below data.folder
        sizes=np.concatenate([data.sizes, background.sizes[new]]),
        upright=np.concatenate([data.upright, background.upright[new]]),
        offsets=np.concatenate([data.offsets, np.full(count, data.offsets[-1])]),
        federated=None if data.federated is None else _federated(data, data.federated, count),
        origins=data.origins and data.origins.with_source("background images", count),
    )


def _federated(data: CocoData, lists: Federated, count: int) -> Federated:
    """Append the lists of images that show no class."""
    absent = np.array([category["id"] for category in data.categories], np.int64)
    indices = range(len(data))
    return Federated(
        Ragged.of([*map(lists.absent.row, indices), *[absent] * count]),
        Ragged.of([*map(lists.not_exhaustive.row, indices), *[np.zeros(0, np.int64)] * count]),
    )


def located(root: Path, patterns: Iterable[str | Path]) -> list[Path]:
    """Return paths and globs relative to a root."""
    return [root / pattern for pattern in patterns]


def empty_draws(annotated: int, share: float) -> int:
    """Return the number of images without objects that give them a share of an epoch.

    Args:
        annotated: Number of draws of images with objects.
        share: The share, in [0, 1).

    Example:
        >>> empty_draws(800, 0.1)
        89
    """
    return round(annotated * share / (1 - share))


def order_with_share(data: CocoData, share: float, order: Callable[[CocoData, np.random.Generator], Ints]) -> Order:
    """Return an order of the training images with a share of images without objects.

    Images with objects follow the given order. Images without objects are drawn anew in each epoch, without repetition
    if there are enough of them, and spread evenly over the epoch.

    Args:
        data: The training set. An image with only ignore regions has no objects.
        share: The share of images without objects, in [0, 1).
        order: Returns the order of the images of a training set; it gets the images with objects.

    Raises:
        UsageError: There are no images with objects, or none without.
    """
    annotated = np.zeros(len(data), bool)
    annotated[data.image_index[~data.iscrowd]] = True
    objects, empty = np.flatnonzero(annotated), np.flatnonzero(~annotated)
    if not len(objects) or (share and not len(empty)):
        kind = "with" if not len(objects) else "without"
        cure = " Add some with background_images, or leave empty_share out." if len(objects) else ""
        raise UsageError(f"empty_share={share:g}: there are no training images {kind} objects.{cure}")
    with_objects = data.select(objects)

    def mixed(rng: np.random.Generator) -> Ints:
        drawn = objects[order(with_objects, rng)]
        number = empty_draws(len(drawn), share)
        rounds = -(-number // max(len(empty), 1))
        fillers = np.concatenate([empty[:0], *(rng.permutation(empty) for _ in range(rounds))])[:number]
        total = len(drawn) + number
        places = np.floor((np.arange(number) + rng.random()) * total / max(number, 1)).astype(np.int64)
        images = np.empty(total, np.int64)
        at = np.zeros(total, bool)
        at[np.minimum(places, total - 1)] = True
        images[at], images[~at] = fillers, drawn
        return images

    return mixed
