"""Detections and ground truth of many images as flat arrays."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

DETECTION, OBJECT, CROWD, ABSENT, NOT_EXHAUSTIVE = range(5)
"""What a row is. The last two have no box: a class that is known to be absent from the image, and one of which not all
objects are annotated."""


@dataclass(frozen=True)
class DetectionTable:
    """Detections and ground truth of I images in R rows, sorted by image.

    Args:
        image_ids: The data set's id of each image; the place in the evaluation where none was given, int64 [I].
        images: The image of each row, an index into ``image_ids``, int64 [R].
        boxes: x1, y1, x2, y2 in pixels, float32 [R, 4].
        labels: Classes, int32 [R].
        kinds: ``DETECTION``, ``OBJECT``, ``CROWD``, ``ABSENT`` or ``NOT_EXHAUSTIVE``, int32 [R].
        scores: A detection's score, or an object's area (NaN: that of its box), float32 [R].
    """

    image_ids: Array
    images: Array
    boxes: Array
    labels: Array
    kinds: Array
    scores: Array

    def save(self, path: str | Path) -> None:
        """Writes the arrays to a file of numpy's format ``npz``."""
        np.savez_compressed(path, **vars(self))

    @classmethod
    def load(cls, path: str | Path) -> "DetectionTable":
        """Reads what ``save`` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**arrays)

    def of(self, *kinds: int) -> "DetectionTable":
        """The rows of some kinds."""
        return self.where(np.isin(self.kinds, kinds))

    def where(self, keep: Array) -> "DetectionTable":
        """The rows of a mask, bool [R]; all images stay."""
        columns = {name: getattr(self, name)[keep] for name in ("images", "boxes", "labels", "kinds", "scores")}
        return DetectionTable(self.image_ids, **columns)

    def best_of_images(self, number: int) -> "DetectionTable":
        """The rows without those detections of an image that come after its best ones; ties keep their order.

        Args:
            number: Detections of each image that are kept.
        """
        detections = np.flatnonzero(self.kinds == DETECTION)
        order = detections[np.lexsort((-self.scores[detections], self.images[detections]))]
        images = self.images[order]
        rank = np.arange(len(order)) - np.searchsorted(images, images)
        keep = np.ones(len(self.kinds), bool)
        keep[order[rank >= number]] = False
        return self.where(keep)

    @property
    def xywh(self) -> Array:
        """Left, top, width and height, float64 [R, 4]: subtracted in float64, as COCO's evaluator does."""
        boxes = self.boxes.astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        return boxes
