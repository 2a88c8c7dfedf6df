"""COCO and LVIS evaluation of a detection table: all numbers and curves from one run of the evaluator."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..core.object_sizes import OBJECT_SIZES
from .backends import BackendName, Protocol, with_backend
from .calibration import reliability, true_positives
from .confusion import confusion_matrix
from .detection_table import Array, DetectionTable

RECALLS = np.linspace(0, 1, 101)
"""The recalls at which COCO reads precision."""

IOU_50, IOU_75 = 0, 5  # indices among COCO's ten IoU thresholds


@dataclass(frozen=True)
class Evaluation:
    """Results of an evaluation with K classes.

    Args:
        class_names: The K class names.
        numbers: Every scalar by its name, as returned by ``DetectionMAP.compute``.
        ap: AP of each class, -1 if it has no ground truth [K].
        ap_50: AP of each class at IoU 0.5 [K].
        precision_50: Precision of each class at IoU 0.5 and the recalls ``RECALLS``; 0 if a recall is not reached, -1
            if there is no ground truth [K, 101].
        scores_50: Score threshold at which each of these recalls is reached [K, 101].
        confusion: Counts of ground truth (rows) and detections (columns), the last of each is background, int64
            [K + 1, K + 1]. Detections have at least ``confusion_score``. Each takes the object of largest IoU, at least
            0.5 and of any class, that no better detection has taken. Unmatched detections inside a crowd of their class
            are not counted.
        confusion_score: Smallest score of a detection in ``confusion``.
        rows: The evaluated detections and ground truth; on several processes only the first has them, others None.
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


def number_names(
    class_names: Iterable[str], limits: Sequence[int], groups: Iterable[str], calibration: bool = False
) -> list[str]:
    """List the names of the numbers of an evaluation, in their order.

    Args:
        class_names: The class names.
        limits: Limits of detections; there is a recall for each.
        groups: Names of the groups of classes; there is an AP for each.
        calibration: Whether there is a calibration error.
    """
    return [
        *("map", "map_50", "map_75"),
        *(f"map_{size}" for size in OBJECT_SIZES),
        *(f"mar_{limit}" for limit in limits),
        *(f"mar_{size}" for size in OBJECT_SIZES),
        *(f"map_{group}" for group in groups),
        *(["ece"] if calibration else []),
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
    calibration_score: float | None = None,
) -> Evaluation:
    """Evaluate detections by the rules of COCO or LVIS.

    Args:
        rows: Detections and ground truth.
        classes: The name of each label, in ascending order of labels, including every label of ``rows``.
        protocol: ``coco`` evaluates the best detections of each image and class. ``lvis`` evaluates the best detections
            of each image. A class is evaluated in an image only if it is annotated or known to be absent, and unmatched
            detections of a class that is not annotated exhaustively are ignored.
        limits: Limits of detections, ascending. There is a recall for each; AP uses the last.
        groups: Labels of each group of classes, whose AP is averaged.
        confusion_score: Smallest score of a detection in the confusion matrix.
        backend: The evaluator; by default hotcoco, or pycocotools if hotcoco cannot be used.
        calibration_score: Smallest score of a detection in the calibration error; None for no calibration error.
    """
    groups = groups or {}
    counted = rows.where(rows.among_evaluated(limits[-1], protocol == "lvis"))
    tables = with_backend(backend, lambda evaluator: evaluator.tables(counted, classes, protocol, limits))
    precision = tables.precision  # [T, R, K, A]
    # If a class has no object of a size, all of its values are -1. So the mean of class means equals COCO's mean.
    ap = precision.mean(1)  # [T, K, A]
    means = ap.mean(0)
    recall = tables.recall.mean(0)  # [K, A, L]
    error = []
    if calibration_score is not None:
        detections, is_true = true_positives(counted, protocol == "lvis")
        error = [reliability(counted.scores[detections], is_true, calibration_score).error]
    index = {label: k for k, label in enumerate(classes)}
    values = [
        *(_mean(means[:, 0]), _mean(ap[IOU_50, :, 0]), _mean(ap[IOU_75, :, 0])),
        *(_mean(means[:, area]) for area in (1, 2, 3)),
        *(_mean(recall[:, 0, limit]) for limit in range(len(limits))),
        *(_mean(recall[:, area, -1]) for area in (1, 2, 3)),
        *(_mean(means[[index[label] for label in labels], 0]) for labels in groups.values()),
        *error,
        *(*means[:, 0], *ap[IOU_50, :, 0]),
    ]
    names = number_names(classes.values(), limits, groups, bool(error))
    return Evaluation(
        class_names=tuple(classes.values()),
        numbers=dict(zip(names, map(float, values), strict=True)),
        ap=means[:, 0],
        ap_50=ap[IOU_50, :, 0],
        precision_50=precision[IOU_50, :, :, 0].T,
        scores_50=tables.scores[IOU_50, :, :, 0].T,
        confusion=confusion_matrix(counted, list(classes), confusion_score, protocol == "lvis"),
        confusion_score=confusion_score,
        rows=rows,
    )


def _mean(values: Array) -> float:
    """Compute COCO's mean of existing values; -1 if there are none."""
    values = values[values >= 0]
    return float(values.mean()) if values.size else -1.0
