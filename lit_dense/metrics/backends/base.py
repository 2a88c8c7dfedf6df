"""Base class of evaluators, ``Backend``, with its results and conversions of its inputs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from ..detection_table import ABSENT, CROWD, NOT_EXHAUSTIVE, OBJECT, Array, DetectionTable

Protocol = Literal["coco", "lvis"]

NUM_THRESHOLDS, NUM_RECALLS, NUM_AREAS = 10, 101, 4
"""Number of COCO's IoU thresholds .50:.05:.95, recalls 0:.01:1, and sizes (all, small, medium, large)."""


@dataclass(frozen=True)
class Tables:
    """Accumulated results of an evaluation: T IoU thresholds, R recalls, K classes, A sizes, L limits.

    Values are -1 if a class has no ground truth of a size.

    Args:
        precision: Precision at each recall with the last limit, float64 [T, R, K, A].
        scores: Score threshold at which each recall is reached, float64 [T, R, K, A].
        recall: Largest recall, float64 [T, K, A, L].
    """

    precision: Array
    scores: Array
    recall: Array


@dataclass(frozen=True)
class ClassMatches:
    """Matches of one class in one image, for objects of all sizes: D detections, T IoU thresholds.

    Args:
        image: Index of the image.
        label: The class.
        scores: Scores of the detections, best first, float64 [D].
        matched: Mask of detections that match an object or a crowd, bool [T, D].
        ignored: Mask of detections that are neither true nor false positives, bool [T, D].
        num_objects: Number of objects, without crowds.
    """

    image: int
    label: int
    scores: Array
    matched: Array
    ignored: Array
    num_objects: int


class Backend(ABC):
    """Base class of evaluators of boxes by the rules of COCO and LVIS."""

    name: ClassVar[str]

    @abstractmethod
    def tables(
        self, rows: DetectionTable, classes: Mapping[int, str], protocol: Protocol, limits: Sequence[int]
    ) -> Tables:
        """Evaluate detections.

        Args:
            rows: Detections and ground truth; with ``lvis`` only the best detections of each image.
            classes: The name of each label, in ascending order of labels, including every label of ``rows``.
            protocol: The rules. With ``lvis`` a class is evaluated in an image only if it is annotated or known to be
                absent, and unmatched detections of a class that is not annotated exhaustively are ignored.
            limits: Numbers of best detections per image and class that are evaluated, ascending.
        """

    @abstractmethod
    def matches(self, rows: DetectionTable, classes: Mapping[int, str], limit: int) -> list[ClassMatches]:
        """Match detections and ground truth by COCO's rules, without evaluating them.

        Args:
            rows: Detections and ground truth.
            classes: The name of each label, in ascending order of labels.
            limit: Number of best detections per image and class that are matched.

        Returns:
            The matches of each class in each image with detections or objects of the class; sorted by image within a
            class.
        """


def object_columns(rows: DetectionTable) -> dict[str, Array]:
    """Convert the ground truth to the columns of COCO's evaluator.

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
    """Make the image entries of COCO's evaluator, with ids from 0; with ``lvis`` including LVIS's class lists."""
    entries: list[dict[str, Any]] = [{"id": number} for number in range(len(rows.image_ids))]
    if protocol == "lvis":
        for key, kind in (("neg_category_ids", ABSENT), ("not_exhaustive_category_ids", NOT_EXHAUSTIVE)):
            for entry in entries:
                entry[key] = []
            listed = rows.of(kind)
            for number, label in zip(listed.images.tolist(), listed.labels.tolist(), strict=True):
                entries[number][key].append(label)
    return entries
