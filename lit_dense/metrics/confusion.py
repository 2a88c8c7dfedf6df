"""The confusion matrix of detections: which class each object was detected as."""

from collections.abc import Sequence

import numpy as np

from .detection_rows import CROWD, DETECTION, OBJECT, Array, DetectionRows

CONFUSION_IOU = 0.5


def confusion_matrix(rows: DetectionRows, labels: Sequence[int], score: float) -> Array:
    """Counts of ground truth (rows) and detections (columns), the last of each being background, int64 [K + 1, K + 1].

    Detections of any class are matched best first, of equal scores the lower label first. Each takes the object of
    greatest IoU, of equal IoU the later, among those that no better detection took; the IoU is at least .5.
    Unmatched detections inside a crowd of their own class are not counted.

    Args:
        rows: Detections and ground truth.
        labels: The K labels in ascending order; every label of detections and objects is among them.
        score: Smallest score of a detection, compared in float32 as scores are kept.
    """
    detections = np.flatnonzero((rows.kinds == DETECTION) & (rows.scores >= np.float32(score)))
    order = np.lexsort((rows.labels[detections], -rows.scores[detections], rows.images[detections]))
    detections = detections[order]
    objects, crowds = np.flatnonzero(rows.kinds == OBJECT), np.flatnonzero(rows.kinds == CROWD)
    finders, found = _match(rows, detections, objects)
    is_missed, is_false = np.ones(len(objects), bool), np.ones(len(detections), bool)
    is_missed[found] = is_false[finders] = is_false[_inside(rows, detections, crowds)] = False
    background = len(labels)
    size = background + 1
    classes = np.searchsorted(labels, rows.labels)
    truth, taken_for = classes[objects], classes[detections]
    pairs = np.concatenate(
        [
            truth[found] * size + taken_for[finders],
            truth[is_missed] * size + background,
            background * size + taken_for[is_false],
        ]
    )
    return np.bincount(pairs, minlength=size * size).reshape(size, size).astype(np.int64)


def _match(rows: DetectionRows, detections: Array, objects: Array) -> tuple[Array, Array]:
    """The places of matched detections, and those of their objects.

    Args:
        rows: Detections and ground truth.
        detections: Rows of detections, by image and best first.
        objects: Rows of objects, by image.
    """
    finders, targets, overlap = _overlaps(rows, detections, objects, of_union=True)
    # A detection with one candidate takes it, or finds it taken: worse detections need not look at that object.
    has_one = np.bincount(finders, minlength=len(detections))[finders] == 1
    taken_by = np.full(len(objects), len(detections))
    np.minimum.at(taken_by, targets[has_one], finders[has_one])
    keep = np.flatnonzero(finders <= taken_by[targets])
    keep = keep[np.lexsort((-targets[keep], -overlap[keep], finders[keep]))]
    taken: dict[int, int] = {}
    matched: set[int] = set()
    for finder, target in zip(finders[keep].tolist(), targets[keep].tolist(), strict=True):
        if finder not in matched and target not in taken:
            matched.add(finder)
            taken[target] = finder
    return np.array([*taken.values()], np.int64), np.array([*taken], np.int64)


def _inside(rows: DetectionRows, detections: Array, crowds: Array) -> Array:
    """The places of detections at least half of which lies in a crowd of their class."""
    inner, crowd, _ = _overlaps(rows, detections, crowds, of_union=False)
    places: Array = inner[rows.labels[detections[inner]] == rows.labels[crowds[crowd]]]
    return places


def _overlaps(rows: DetectionRows, detections: Array, others: Array, of_union: bool) -> tuple[Array, Array, Array]:
    """Pairs of boxes of one image that overlap by at least ``CONFUSION_IOU``: places of both, and the overlap.

    Args:
        rows: The boxes.
        detections: Rows of detections, by image.
        others: Rows of ground truth, by image.
        of_union: The intersection is divided by the union, else by the detection's area.
    """
    if not len(others):
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    boxes = rows.xywh
    images, images_of_others = rows.images[detections], rows.images[others]
    starts = np.searchsorted(images_of_others, images, side="left")
    counts = np.searchsorted(images_of_others, images, side="right") - starts
    places, own = np.arange(len(detections)), boxes[detections].T.copy()
    left, top, width, height = boxes[others].T.copy()
    parts = [(places[:0], places[:0], np.zeros(0))]
    for number in range(counts.max(initial=0)):  # the ground truth of each image one after another: few and long arrays
        more = counts > number
        if not more.all():
            places, own, starts, counts = places[more], own[:, more], starts[more], counts[more]
        other = starts + number
        x, y, w, h = own
        inner_width = np.minimum(x + w, (left + width)[other]) - np.maximum(x, left[other])
        inner_height = np.minimum(y + h, (top + height)[other]) - np.maximum(y, top[other])
        inner = inner_width.clip(0) * inner_height.clip(0)
        whole = w * h + (width * height)[other] - inner if of_union else w * h
        overlap = np.divide(inner, whole, out=np.zeros_like(inner), where=inner > 0)
        near = overlap >= CONFUSION_IOU
        parts.append((places[near], other[near], overlap[near]))
    first, second, overlap = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return first, second, overlap
