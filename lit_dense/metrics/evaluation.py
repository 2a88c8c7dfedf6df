"""COCO's and LVIS's evaluation of flat arrays, everything that is shown of it from one run of the evaluator."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .backends import BackendName, Protocol, with_backend
from .confusion import confusion_matrix
from .detection_table import Array, DetectionTable

RECALLS = np.linspace(0, 1, 101)
"""The recalls at which COCO reads precision."""

AREAS = ("small", "medium", "large")  # COCO's, after the first one, which is "all"
IOU_50, IOU_75 = 0, 5  # places among COCO's ten IoU thresholds


@dataclass(frozen=True)
class Evaluation:
    """What one evaluation found: K classes.

    Args:
        class_names: The K names.
        numbers: Every scalar by its name, as ``DetectionMAP.compute`` returns them.
        ap: AP of each class, -1 where it has no ground truth [K].
        ap_50: AP at IoU .5 of each class [K].
        precision_50: Precision of each class at IoU .5 and the recalls ``RECALLS``; 0 where a recall is not reached, -1
            where there is no ground truth [K, 101].
        scores_50: The score down to which detections count there [K, 101].
        confusion: Counts of ground truth (rows) and detections (columns), the last of each being background: a
            detection from ``confusion_score`` on takes the object of greatest IoU, from .5 on and of whatever class,
            that a better detection has not taken. Unmatched detections inside a crowd of their class are left out,
            int64 [K + 1, K + 1].
        confusion_score: Smallest score of a detection in ``confusion``.
        rows: What was evaluated; on several processes the first alone has it.
    """

    class_names: tuple[str, ...]
    numbers: dict[str, float]
    ap: Array
    ap_50: Array
    precision_50: Array
    scores_50: Array
    confusion: Array
    confusion_score: float
    rows: DetectionTable | None = None


def number_names(class_names: Iterable[str], limits: Sequence[int], groups: Iterable[str]) -> list[str]:
    """The names of an evaluation's numbers, in their order.

    Args:
        class_names: The classes.
        limits: Numbers of best detections for which there is a recall.
        groups: Groups of classes that have an AP of their own.
    """
    return [
        *("map", "map_50", "map_75"),
        *(f"map_{area}" for area in AREAS),
        *(f"mar_{limit}" for limit in limits),
        *(f"mar_{area}" for area in AREAS),
        *(f"map_{group}" for group in groups),
        *(f"{key}/{name}" for key in ("map", "map_50") for name in class_names),
    ]


def evaluate(
    rows: DetectionTable,
    classes: Mapping[int, str],
    protocol: Protocol = "coco",
    limits: Sequence[int] = (1, 10, 100),
    groups: Mapping[str, Sequence[int]] | None = None,
    confusion_score: float = 0.3,
    backend: BackendName | None = None,
) -> Evaluation:
    """Evaluates detections as COCO or LVIS does.

    Args:
        rows: Detections and ground truth.
        classes: The name of each label, in ascending order of labels; every label of ``rows`` is among them.
        protocol: ``coco``: all detections count, and of each image and class the best of the last limit. ``lvis``: of
            each image the best of the one limit; a class counts in an image only where it is annotated or known to be
            absent, and unmatched detections of a class that is not annotated exhaustively are ignored.
        limits: Numbers of best detections that count, ascending: a recall for each, AP with the last.
        groups: Labels of groups of classes whose AP is averaged.
        confusion_score: Smallest score of detections in the confusion matrix.
        backend: The evaluator; by default hotcoco, and pycocotools where that cannot be used.
    """
    groups = groups or {}
    counted = rows.best_of_images(limits[-1]) if protocol == "lvis" else rows
    tables = with_backend(backend, lambda evaluator: evaluator.tables(counted, classes, protocol, limits))
    precision = tables.precision  # [T, R, K, A]
    # where a class has no object of a size, all of its values are -1, so a class's mean says what the mean of all needs
    ap = precision.mean(1)  # [T, K, A]
    means = ap.mean(0)
    recall = tables.recall.mean(0)  # [K, A, L]
    place = {label: k for k, label in enumerate(classes)}
    values = [
        *(_mean(means[:, 0]), _mean(ap[IOU_50, :, 0]), _mean(ap[IOU_75, :, 0])),
        *(_mean(means[:, area]) for area in (1, 2, 3)),
        *(_mean(recall[:, 0, limit]) for limit in range(len(limits))),
        *(_mean(recall[:, area, -1]) for area in (1, 2, 3)),
        *(_mean(means[[place[label] for label in labels], 0]) for labels in groups.values()),
        *(*means[:, 0], *ap[IOU_50, :, 0]),
    ]
    names = number_names(classes.values(), limits, groups)
    return Evaluation(
        class_names=tuple(classes.values()),
        numbers=dict(zip(names, map(float, values), strict=True)),
        ap=means[:, 0],
        ap_50=ap[IOU_50, :, 0],
        precision_50=precision[IOU_50, :, :, 0].T,
        scores_50=tables.scores[IOU_50, :, :, 0].T,
        confusion=confusion_matrix(counted, list(classes), confusion_score),
        confusion_score=confusion_score,
        rows=rows,
    )


def _mean(values: Array) -> float:
    """COCO's mean of the values that exist, -1 where none does."""
    values = values[values >= 0]
    return float(values.mean()) if values.size else -1.0
