"""COCO's and LVIS's evaluation of flat arrays, everything that is shown of it from one run of the evaluator."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .detection_rows import ABSENT, CROWD, DETECTION, NOT_EXHAUSTIVE, OBJECT, Array, DetectionRows

Protocol = Literal["coco", "lvis"]

RECALLS = np.linspace(0, 1, 101)
"""The recalls at which COCO reads precision."""

AREAS = ("small", "medium", "large")  # COCO's, after the first one, which is "all"
IOU_50, IOU_75 = 0, 5  # places among COCO's ten IoU thresholds
CONFUSION_IOU = 0.5


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
    rows: DetectionRows | None = None


def number_names(
    class_names: Iterable[str], protocol: Protocol, max_detections: int, groups: Iterable[str]
) -> list[str]:
    """The names of an evaluation's numbers, in their order.

    Args:
        class_names: The classes.
        protocol: COCO's three limits of detections, or LVIS's one.
        max_detections: The last limit.
        groups: Groups of classes that have an AP of their own.
    """
    limits = (1, 10, max_detections) if protocol == "coco" else (max_detections,)
    return [
        *("map", "map_50", "map_75"),
        *(f"map_{area}" for area in AREAS),
        *(f"mar_{limit}" for limit in limits),
        *(f"mar_{area}" for area in AREAS),
        *(f"map_{group}" for group in groups),
        *(f"{key}/{name}" for key in ("map", "map_50") for name in class_names),
    ]


def evaluate(
    rows: DetectionRows,
    classes: Mapping[int, str],
    protocol: Protocol = "coco",
    max_detections: int = 100,
    groups: Mapping[str, Sequence[int]] | None = None,
    confusion_score: float = 0.3,
) -> Evaluation:
    """Evaluates detections as COCO or LVIS does.

    Args:
        rows: Detections and ground truth.
        classes: The name of each label; every label of ``rows`` is among them.
        protocol: ``coco``: all detections count, and of each image and class the best ``max_detections``. ``lvis``: of
            each image the best ``max_detections``; a class counts in an image only where it is annotated or known to be
            absent, and unmatched detections of a class that is not annotated exhaustively are ignored.
        max_detections: Best detections that count.
        groups: Labels of groups of classes whose AP is averaged.
        confusion_score: Smallest score of detections in the confusion matrix.
    """
    groups = groups or {}
    evaluator = run_evaluator(rows, classes, protocol, max_detections)
    found = evaluator.eval
    limits = 3 if protocol == "coco" else 1
    precision = found["precision"].reshape(10, 101, len(classes), 4, limits)[..., -1]  # [T, R, K, A]
    scores = found["scores"].reshape((*precision.shape, limits))[IOU_50, :, :, 0, -1]
    # where a class has no object of a size, all of its values are -1, so a class's mean says what the mean of all needs
    ap = precision.mean(1)  # [T, K, A]
    means = ap.mean(0)
    recall = found["recall"].reshape(10, len(classes), 4, limits).mean(0)  # [K, A, M]
    place = {label: k for k, label in enumerate(classes)}
    values = [
        *(_mean(means[:, 0]), _mean(ap[IOU_50, :, 0]), _mean(ap[IOU_75, :, 0])),
        *(_mean(means[:, area]) for area in (1, 2, 3)),
        *(_mean(recall[:, 0, limit]) for limit in range(limits)),
        *(_mean(recall[:, area, -1]) for area in (1, 2, 3)),
        *(_mean(means[[place[label] for label in labels], 0]) for labels in groups.values()),
        *(*means[:, 0], *ap[IOU_50, :, 0]),
    ]
    names = number_names(classes.values(), protocol, max_detections, groups)
    matrix = evaluator.confusion_matrix(CONFUSION_IOU, len(rows.images), confusion_score)["matrix"].astype(np.int64)
    matrix[-1] -= _inside_crowds(rows, place, confusion_score)
    return Evaluation(
        class_names=tuple(classes.values()),
        numbers=dict(zip(names, map(float, values), strict=True)),
        ap=means[:, 0],
        ap_50=ap[IOU_50, :, 0],
        precision_50=precision[IOU_50, :, :, 0].T,
        scores_50=scores.T,
        confusion=matrix,
        confusion_score=confusion_score,
        rows=rows,
    )


def run_evaluator(
    rows: DetectionRows, classes: Mapping[int, str], protocol: Protocol, max_detections: int, all_sizes: bool = False
) -> Any:
    """The evaluator after its run: hotcoco's ``COCOeval``.

    Args:
        rows: Detections and ground truth.
        classes: The name of each label.
        protocol: Whose rules.
        max_detections: Best detections that count.
        all_sizes: Leave out the evaluations of small, medium and large objects.
    """
    from hotcoco import COCO, COCOeval

    objects, detections = rows.of(OBJECT, CROWD), rows.of(DETECTION)
    images: list[dict[str, Any]] = [{"id": number} for number in range(len(rows.image_ids))]
    if protocol == "lvis":
        for key, kind in (("neg_category_ids", ABSENT), ("not_exhaustive_category_ids", NOT_EXHAUSTIVE)):
            for image in images:
                image[key] = []
            some = rows.of(kind)
            for number, label in zip(some.images.tolist(), some.labels.tolist(), strict=True):
                images[number][key].append(label)
    categories = [{"id": label, "name": name} for label, name in classes.items()]
    boxes = objects.xywh
    truth = COCO.from_arrays(
        images,
        categories,
        objects.images,
        objects.labels,
        boxes,
        ids=np.arange(1, len(boxes) + 1),
        area=np.where(np.isnan(objects.scores), boxes[:, 2:].prod(1), objects.scores),
        iscrowd=objects.kinds == CROWD,
    )
    table = np.empty((len(detections.images), 7))
    table[:, 0], table[:, 1:5] = detections.images, detections.xywh
    table[:, 5], table[:, 6] = detections.scores, detections.labels
    results = truth.load_res(table)
    if protocol == "lvis":
        results = results.cap_detections_per_image(max_detections)
    evaluator = COCOeval(truth, results, "bbox", lvis_style=protocol == "lvis")
    evaluator.params.max_dets = [1, 10, max_detections] if protocol == "coco" else [max_detections]
    if all_sizes:
        evaluator.params.area_rng, evaluator.params.area_rng_lbl = evaluator.params.area_rng[:1], ["all"]
    evaluator.evaluate()
    evaluator.accumulate()
    return evaluator


def _inside_crowds(rows: DetectionRows, place: Mapping[int, int], score: float) -> Array:
    """Detections of each class that lie in a crowd of the class and match no object whatever is taken [K + 1]."""
    from hotcoco.primitives import bbox_iou

    counts = np.zeros(len(place) + 1, np.int64)
    crowded = np.unique(rows.images[rows.kinds == CROWD])
    if not len(crowded):
        return counts
    starts, ends = np.searchsorted(rows.images, crowded), np.searchsorted(rows.images, crowded, side="right")
    boxes, real = rows.xywh, rows.kinds == OBJECT
    for start, end in zip(starts, ends, strict=True):
        number = np.arange(start, end)
        found = number[(rows.kinds[number] == DETECTION) & (rows.scores[number] >= score)]
        objects, crowds = number[real[number]], number[rows.kinds[number] == CROWD]
        free = (bbox_iou(boxes[found], boxes[objects], np.zeros(len(objects), bool)) < CONFUSION_IOU).all(1)
        same = rows.labels[found][:, None] == rows.labels[crowds]
        inside = (bbox_iou(boxes[found], boxes[crowds], np.ones(len(crowds), bool)) >= CONFUSION_IOU) & same
        for label in rows.labels[found[free & inside.any(1)]].tolist():
            counts[place[label]] += 1
    return counts


def _mean(values: Array) -> float:
    """COCO's mean of the values that exist, -1 where none does."""
    values = values[values >= 0]
    return float(values.mean()) if values.size else -1.0
