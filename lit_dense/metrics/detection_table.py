"""Detections and ground truth of many images as flat arrays."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

DETECTION, OBJECT, CROWD, ABSENT, NOT_EXHAUSTIVE, UNKNOWN = range(6)
"""Kind of a row. ``ABSENT`` and ``NOT_EXHAUSTIVE`` have no box: they are classes that are known to be absent from the
image, and of which not all objects in the image are annotated. ``UNKNOWN`` is a detection or object of a class that the
image is not annotated for; it is removed before the evaluation."""


@dataclass(frozen=True)
class DetectionTable:
    """Detections and ground truth of I images in R rows, sorted by image.

    Args:
        image_ids: Id of each image in the data set, or its index in the evaluation if no id was given, int64 [I].
        images: The image of each row, an index into ``image_ids``, int64 [R].
        boxes: x1, y1, x2, y2 in pixels, float32 [R, 4].
        labels: Classes, int32 [R].
        kinds: ``DETECTION``, ``OBJECT``, ``CROWD``, ``ABSENT`` or ``NOT_EXHAUSTIVE``, int32 [R].
        scores: Score of a detection, or area of an object (NaN means the area of its box), float32 [R].
    """

    image_ids: Array
    images: Array
    boxes: Array
    labels: Array
    kinds: Array
    scores: Array

    def save(self, path: str | Path) -> None:
        """Write the arrays to an ``.npz`` file.

        Args:
            path: The file.
        """
        np.savez_compressed(path, **vars(self))

    @classmethod
    def load(cls, path: str | Path) -> "DetectionTable":
        """Read a file written by :meth:`save`.

        Args:
            path: The file.
        """
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**arrays)

    def of(self, *kinds: int) -> "DetectionTable":
        """Select the rows of the given kinds; all images stay.

        Args:
            kinds: Kinds of rows.
        """
        return self.where(np.isin(self.kinds, kinds))

    def where(self, keep: Array | slice) -> "DetectionTable":
        """Select the rows of a mask; all images stay.

        Args:
            keep: Mask of the rows to keep, bool [R]; or their indices, or a slice.
        """
        columns = {name: getattr(self, name)[keep] for name in ("images", "boxes", "labels", "kinds", "scores")}
        return DetectionTable(self.image_ids, **columns)

    def best_of_images(self, number: int) -> "DetectionTable":
        """Keep only the best detections of each image, and all other rows; ties keep their order.

        Args:
            number: Number of detections of each image to keep.
        """
        return self.where(self.among_best(number, self.images))

    def among_best(self, number: int, groups: Array) -> Array:
        """Return whether a row is among the best detections of its group, or no detection [R]; ties keep their order.

        Args:
            number: Number of detections of each group.
            groups: Number of the group of each row [R].
        """
        detections = np.flatnonzero(self.kinds == DETECTION)
        order = detections[np.lexsort((-self.scores[detections], groups[detections]))]
        ordered = groups[order]
        rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
        keep = np.ones(len(self.kinds), bool)
        keep[order[rank >= number]] = False
        return keep

    def among_evaluated(self, limit: int, lvis: bool = False) -> Array:
        """Return whether an evaluation reads a row: ground truth, and the best detections [R].

        Args:
            limit: Number of best detections of each image and class, or with LVIS's rules of each image.
            lvis: Whether the rules are those of LVIS.
        """
        return self.among_best(limit, self.images if lvis else self.groups)

    @property
    def groups(self) -> Array:
        """A number for each pair of image and class, ascending by image and then by class, int64 [R]."""
        return self.images.astype(np.int64) * (int(self.labels.max(initial=0)) + 1) + self.labels

    @property
    def xywh(self) -> Array:
        """Boxes as left, top, width and height, float64 [R, 4]; subtracted in float64, as in COCO's evaluator."""
        boxes = self.boxes.astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        return boxes
