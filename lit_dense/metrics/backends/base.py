"""What an evaluator must do for the metric."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from ..detection_table import ABSENT, CROWD, NOT_EXHAUSTIVE, OBJECT, Array, DetectionTable

Protocol = Literal["coco", "lvis"]

NUM_THRESHOLDS, NUM_RECALLS, NUM_AREAS = 10, 101, 4
"""COCO's IoU thresholds .50:.05:.95, recalls 0:.01:1, and sizes: all, small, medium, large."""


@dataclass(frozen=True)
class Tables:
    """What an evaluation accumulates over the images: T IoU thresholds, R recalls, K classes, A sizes, L limits.

    -1 stands where a class has no ground truth of a size.

    Args:
        precision: Precision with the last limit, float64 [T, R, K, A].
        scores: The score down to which detections count there, float64 [T, R, K, A].
        recall: Greatest recall, float64 [T, K, A, L].
    """

    precision: Array
    scores: Array
    recall: Array


@dataclass(frozen=True)
class ClassMatches:
    """The matches of one class in one image, of objects of all sizes: D detections, T IoU thresholds.

    Args:
        image: Index of the image.
        label: The class.
        scores: Scores, best first, float64 [D].
        matched: Whether a detection matched an object or a crowd, bool [T, D].
        ignored: Whether a detection counts neither as right nor as wrong, bool [T, D].
        num_objects: Number of objects, without crowds.
    """

    image: int
    label: int
    scores: Array
    matched: Array
    ignored: Array
    num_objects: int


class Backend(ABC):
    """An evaluator of boxes by COCO's and LVIS's rules."""

    name: ClassVar[str]

    @abstractmethod
    def tables(
        self, rows: DetectionTable, classes: Mapping[int, str], protocol: Protocol, limits: Sequence[int]
    ) -> Tables:
        """Evaluates detections.

        Args:
            rows: Detections and ground truth; with ``lvis`` the best detections of each image only.
            classes: The name of each label, in ascending order of labels; every label of ``rows`` is among them.
            protocol: The rules: with ``lvis`` a class counts in an image only where it is annotated or known to be
                absent, and unmatched detections of a class that is not annotated exhaustively are ignored.
            limits: Numbers of best detections of an image and class that count, ascending.
        """

    @abstractmethod
    def matches(self, rows: DetectionTable, classes: Mapping[int, str], limit: int) -> list[ClassMatches]:
        """Matches detections and ground truth by COCO's rules, without evaluating them.

        Args:
            rows: Detections and ground truth.
            classes: The name of each label, in ascending order of labels.
            limit: Number of best detections of an image and class that are matched.

        Returns:
            The matches of each class in each image that has detections or objects of it, those of a class by image.
        """


def object_columns(rows: DetectionTable) -> dict[str, Array]:
    """The ground truth as COCO's evaluator takes it.

    Returns:
        ``images``, ``labels``, ``boxes`` (left, top, width, height), ``area`` and ``iscrowd``.
    """
    objects = rows.of(OBJECT, CROWD)
    boxes = objects.xywh
    return {
        "images": objects.images,
        "labels": objects.labels,
        "boxes": boxes,
        "area": np.where(np.isnan(objects.scores), boxes[:, 2:].prod(1), objects.scores),
        "iscrowd": objects.kinds == CROWD,
    }


def image_entries(rows: DetectionTable, protocol: Protocol) -> list[dict[str, Any]]:
    """The images as COCO's evaluator takes them, numbered from 0; with ``lvis`` with LVIS's lists of classes."""
    entries: list[dict[str, Any]] = [{"id": number} for number in range(len(rows.image_ids))]
    if protocol == "lvis":
        for key, kind in (("neg_category_ids", ABSENT), ("not_exhaustive_category_ids", NOT_EXHAUSTIVE)):
            for entry in entries:
                entry[key] = []
            listed = rows.of(kind)
            for number, label in zip(listed.images.tolist(), listed.labels.tolist(), strict=True):
                entries[number][key].append(label)
    return entries
