"""Types of detection errors and the AP that each costs, by TIDE (https://arxiv.org/abs/2008.08115)."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..core.errors import check_choice
from .backends import Protocol
from .confusion import overlaps
from .detection_table import OBJECT, Array, DetectionTable
from .evaluation import RECALLS
from .matching import match_own_class

ERRORS = ("classification", "localisation", "both", "duplicate", "background", "missed")
"""The types of errors; the index of a type is its number in :attr:`TideErrors.error`."""
CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND, MISSED = range(6)
SPECIAL = ("false positives", "false negatives")
"""Sets of errors that are fixed together: all false positives, or all objects that are not found."""
CORRECT, UNCOUNTED = -1, -2
"""Numbers in :attr:`TideErrors.error` of rows without an error, and of rows that are neither right nor wrong."""

FOREGROUND_IOU, BACKGROUND_IOU = 0.5, 0.1
_ROWS = 1_000_000  # rows of the images that are matched at once, to limit memory


@dataclass(frozen=True)
class TideErrors:
    """The error of each detection and object of a table of R rows with K classes, and the AP that the types cost.

    Args:
        error: Index into ``ERRORS``, ``CORRECT`` for true positives and objects that are found, or ``UNCOUNTED``, int8
            [R]. An object that no detection finds has the type that hides it, classification or localisation, if a
            detection with such an error would otherwise find it; else it is missed.
        partner: The row that explains a row, int64 [R]: of a true positive its object and the reverse; of a
            classification error, localisation error or duplicate its object; of such an object its best detection;
            else -1.
        num_objects: Number of objects of each class, int64 [K].
        counts: Number of errors of each type and class, int64 [6, K]. An error of a detection counts for the class of
            the detection, a missed object for its own.
    """

    error: Array
    partner: Array
    num_objects: Array
    counts: Array
    _points: "_Points"

    def ap_50(self, *fixed: str) -> Array:
        """Compute AP at IoU 0.5 of each class after errors are fixed; -1 if a class has no object, float64 [K].

        To fix a **classification** or **localisation** error is to make it a true positive, with the class or the box
        of its object; of several such errors of one object, the best is kept. If the object is found already, and for
        any **both**, **duplicate** and **background** error, the detection is removed. **Missed** objects are removed.
        For **false positives**, every false positive is removed; for **false negatives**, every object that is not
        found. A class without any object left has AP 1 if it has no detection left, else 0.

        Args:
            fixed: Names of ``ERRORS`` and ``SPECIAL``; by default none.
        """
        for name in fixed:
            check_choice("TIDE", "fixed", name, (*ERRORS, *SPECIAL))
        points = self._points
        kept, true, labels = np.ones(len(points.error), bool), points.error == CORRECT, points.labels
        for name in fixed:
            if name in ERRORS:
                number = ERRORS.index(name)
                is_kind = points.error == number
                true = true | (is_kind & points.rescues)
                kept = kept & (~is_kind | points.rescues)
                if number == CLASSIFICATION:
                    labels = np.where(is_kind & points.rescues, points.object_labels, labels)
        objects = self.num_objects
        if "missed" in fixed:
            objects = objects - self.counts[MISSED]
        if "false positives" in fixed:
            kept = true
        if "false negatives" in fixed:
            objects = np.bincount(labels[true & kept], minlength=len(objects))
        labels, true = labels[kept], true[kept]
        if "classification" in fixed:  # otherwise the points are in order
            order = np.lexsort((-points.scores[kept], labels))
            labels, true = labels[order], true[order]
        starts = np.searchsorted(labels, np.arange(len(objects) + 1))
        values = [_ap(true[starts[k] : starts[k + 1]], int(number)) for k, number in enumerate(objects)]
        return np.where(self.num_objects > 0, values, -1.0)

    @cached_property
    def class_costs(self) -> Array:
        """AP at IoU 0.5 that fixing each type gains in each class, ``ERRORS`` and then ``SPECIAL``, float64 [8, K].

        It is NaN for classes without objects. It can be slightly negative, because AP reads precision at 101 recalls,
        and a smaller number of objects changes these.
        """
        base = self.ap_50()
        gains = np.stack([self.ap_50(name) for name in (*ERRORS, *SPECIAL)]) - base
        gains[:, base < 0] = np.nan
        return gains

    @property
    def costs(self) -> dict[str, float]:
        """AP at IoU 0.5 that fixing each type gains, the mean over classes with objects; at least 0, as in TIDE."""
        known = self.class_costs[:, self.num_objects > 0]
        means = known.mean(1) if known.shape[1] else np.zeros(len(known))
        return dict(zip((*ERRORS, *SPECIAL), np.maximum(means, 0).tolist(), strict=True))

    @property
    def mean_ap_50(self) -> float:
        """AP at IoU 0.5, the mean over classes with objects; -1 if there are none."""
        known = self.ap_50()[self.num_objects > 0]
        return float(known.mean()) if known.size else -1.0


class _Points(NamedTuple):
    """The D detections that count, by class and best first.

    Args:
        labels: Classes [D].
        scores: Scores [D].
        error: ``CORRECT`` or the type of error [D].
        rescues: Whether a detection becomes a true positive when its error is fixed [D].
        object_labels: Class of the object of such a detection [D].
    """

    labels: Array
    scores: Array
    error: Array
    rescues: Array
    object_labels: Array


def tide(rows: DetectionTable, num_classes: int, protocol: Protocol = "coco", max_detections: int = 100) -> TideErrors:
    """Classify the errors of detections at IoU 0.5.

    The first type that applies is taken. **Localization**: the IoU with an object of the class is from 0.1 to 0.5.
    **Classification**: the IoU with an object of another class is at least 0.5. **Duplicate**: the IoU with an object
    of the class is at least 0.5, and a better detection has found the object. **Background**: the IoU with every object
    is below 0.1. **Both**: the IoU with an object of another class is from 0.1 to 0.5. An object is **missed** if no
    detection finds it and fixing classification or localisation errors would not find it.

    Types, order and fixes are those of TIDE's paper and code. AP follows this package's evaluation: classes without
    objects are left out, detections that the evaluation ignores are no errors, and the number of detections is limited
    in the same way. TIDE's code counts classes without objects as AP 0, and limits an image to 100 detections.

    Args:
        rows: Detections and ground truth.
        num_classes: Number of classes K; labels are below it.
        protocol: Rules of the evaluation.
        max_detections: Number of best detections that count, per image and class; with ``lvis`` per image.
    """
    error = np.full(len(rows.kinds), UNCOUNTED, np.int8)
    error[rows.kinds == OBJECT] = MISSED
    partner = np.full(len(rows.kinds), -1, np.int64)
    rescues = np.zeros(len(rows.kinds), bool)
    detections = []
    for part in _parts(rows):
        one, found = rows.where(part), _Part(error[part], partner[part], rescues[part])
        kept = np.flatnonzero(one.among_evaluated(max_detections, protocol == "lvis"))
        detections.append(kept[_classify(one, kept, protocol == "lvis", found)] + part.start)
        found.partner[found.partner >= 0] += part.start
    counted = np.concatenate([np.zeros(0, np.int64), *detections])
    counted = counted[np.lexsort((-rows.scores[counted], rows.labels[counted]))]
    points = _Points(
        labels=rows.labels[counted],
        scores=rows.scores[counted],
        error=error[counted],
        rescues=rescues[counted],
        object_labels=rows.labels[partner[counted]],
    )
    is_object = rows.kinds == OBJECT
    missed = rows.labels[is_object & (error == MISSED)]
    wrong = points.error >= 0
    pairs = [points.error[wrong].astype(np.int64) * num_classes + points.labels[wrong], MISSED * num_classes + missed]
    return TideErrors(
        error=error,
        partner=partner,
        num_objects=np.bincount(rows.labels[is_object], minlength=num_classes),
        counts=np.bincount(np.concatenate(pairs), minlength=6 * num_classes).reshape(6, num_classes),
        _points=points,
    )


class _Part(NamedTuple):
    """Views of the results for some images, which are written in place; rows are those of the part."""

    error: Array
    partner: Array
    rescues: Array


def _parts(rows: DetectionTable) -> Iterator[slice]:
    """Split the rows into parts of whole images, so that the memory for a part is bounded."""
    ends = np.searchsorted(rows.images, np.arange(len(rows.image_ids)), side="right")
    start = 0
    while start < len(rows.images):
        last = int(np.searchsorted(ends, start + _ROWS, side="right")) - 1
        end = int(ends[last]) if last >= 0 and ends[last] > start else int(ends[np.searchsorted(ends, start, "right")])
        yield slice(start, end)
        start = end


def _classify(rows: DetectionTable, kept: Array, lvis: bool, found: _Part) -> Array:
    """Write the results of the kept rows of some images; return the positions of detections that count in ``kept``."""
    table = rows.where(kept)
    match = match_own_class(table, lvis)
    detections, objects = match.detections[match.counts], match.objects[match.counts]
    is_true = objects >= 0
    found.error[kept[detections[is_true]]] = found.error[kept[objects[is_true]]] = CORRECT
    found.partner[kept[detections[is_true]]] = kept[objects[is_true]]
    found.partner[kept[objects[is_true]]] = kept[detections[is_true]]
    taken = np.zeros(len(table.kinds), bool)
    taken[objects[is_true]] = True

    wrong = detections[~is_true]
    wrong = wrong[np.argsort(table.images[wrong], kind="stable")]
    own, own_iou, other, other_iou = _nearest_objects(table, wrong)
    error = np.full(len(wrong), BOTH, np.int8)
    error[np.maximum(own_iou, other_iou) < BACKGROUND_IOU] = BACKGROUND
    error[own_iou >= FOREGROUND_IOU] = DUPLICATE
    error[other_iou >= FOREGROUND_IOU] = CLASSIFICATION
    error[(own_iou >= BACKGROUND_IOU) & (own_iou < FOREGROUND_IOU)] = LOCALISATION
    partner = np.where(error == CLASSIFICATION, other, np.where(np.isin(error, (LOCALISATION, DUPLICATE)), own, -1))
    found.error[kept[wrong]] = error
    found.partner[kept[wrong]] = np.where(partner >= 0, kept[partner], -1)

    hides = np.flatnonzero(np.isin(error, (CLASSIFICATION, LOCALISATION)) & ~taken[partner])
    hides = hides[np.lexsort((hides, -table.scores[wrong[hides]], partner[hides]))]
    best = hides[np.unique(partner[hides], return_index=True)[1]]  # the best detection of each object
    found.rescues[kept[wrong[best]]] = True
    found.error[kept[partner[best]]] = error[best]
    found.partner[kept[partner[best]]] = kept[wrong[best]]
    return detections


def _nearest_objects(rows: DetectionTable, detections: Array) -> tuple[Array, Array, Array, Array]:
    """Find the object of largest IoU of each detection, of its own class and of the other classes.

    Args:
        rows: Detections and ground truth.
        detections: Rows of D detections, by image.

    Returns:
        Row of the object of the own class [D], its IoU [D], and the same for other classes; -1 and 0 if no IoU is at
        least ``BACKGROUND_IOU``.
    """
    objects = np.flatnonzero(rows.kinds == OBJECT)
    position, target, iou = overlaps(rows, detections, objects, of_union=True, least=BACKGROUND_IOU)
    same = rows.labels[detections[position]] == rows.labels[objects[target]]
    results: list[Array] = []
    for chosen in (same, ~same):
        at, of, value = position[chosen], target[chosen], iou[chosen]
        order = np.lexsort((of, -value, at))
        at, first = np.unique(at[order], return_index=True)
        nearest, largest = np.full(len(detections), -1), np.zeros(len(detections))
        nearest[at], largest[at] = objects[of[order[first]]], value[order[first]]
        results += [nearest, largest]
    return results[0], results[1], results[2], results[3]


def _ap(true: Array, objects: int) -> float:
    """Compute COCO's AP of one class.

    Args:
        true: Whether each detection is a true positive, best first [D].
        objects: Number of objects.
    """
    if not objects:
        return float(len(true) == 0)
    positions = np.flatnonzero(true)
    hits = np.arange(1, len(positions) + 1)
    precision = np.maximum.accumulate((hits / (positions + 1))[::-1])[::-1]
    index = np.searchsorted(hits / objects, RECALLS, side="left")
    return float(precision[index[index < len(precision)]].sum() / len(RECALLS))
