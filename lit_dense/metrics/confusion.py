"""The confusion matrix of detections: which class each object was detected as."""

from collections.abc import Sequence

import numpy as np

from .detection_table import CROWD, DETECTION, OBJECT, Array, DetectionTable

CONFUSION_IOU = 0.5


def confusion_matrix(rows: DetectionTable, labels: Sequence[int], score: float) -> Array:
    """Counts of ground truth (rows) and detections (columns), the last of each being background, int64 [K + 1, K + 1].

    Detections of any class are matched best first, of equal scores the earlier first. Each takes the object of
    greatest IoU, of equal IoU the later, among those that no better detection took; the IoU is at least .5.
    Unmatched detections inside a crowd of their own class are not counted.

    Args:
        rows: Detections and ground truth.
        labels: The K labels in ascending order; every label of detections and objects is among them.
        score: Smallest score of a detection, at least 0; compared in float32 as scores are kept.
    """
    detections = np.flatnonzero((rows.kinds == DETECTION) & (rows.scores >= np.float32(score)))
    detections = detections[_order(rows.images[detections], rows.scores[detections])]
    objects, crowds = np.flatnonzero(rows.kinds == OBJECT), np.flatnonzero(rows.kinds == CROWD)
    finders, found = _match(rows, detections, objects)
    is_missed, is_false = np.ones(len(objects), bool), np.ones(len(detections), bool)
    is_missed[found] = is_false[finders] = is_false[_inside(rows, detections, crowds)] = False
    background = len(labels)
    size = background + 1
    truth, taken_for = (np.searchsorted(labels, rows.labels[part]) for part in (objects, detections))
    pairs = np.concatenate(
        [
            truth[found] * size + taken_for[finders],
            truth[is_missed] * size + background,
            background * size + taken_for[is_false],
        ]
    )
    return np.bincount(pairs, minlength=size * size).reshape(size, size).astype(np.int64)


def _order(images: Array, scores: Array) -> Array:
    """The order by image, and best first in each.

    Args:
        images: Images [D].
        scores: Scores of at least 0, float32 [D]: their bits, read as integers, are in the same order.
    """
    bits = (scores + np.float32(0)).view(np.int32).astype(np.int64)  # -0 becomes 0
    return np.argsort((images.astype(np.int64) << 31) - bits, kind="stable")  # one key is sorted much faster than two


def _match(rows: DetectionTable, detections: Array, objects: Array) -> tuple[Array, Array]:
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


def _inside(rows: DetectionTable, detections: Array, crowds: Array) -> Array:
    """The places of detections at least half of which lies in a crowd of their class."""
    inner, crowd, _ = _overlaps(rows, detections, crowds, of_union=False)
    places: Array = inner[rows.labels[detections[inner]] == rows.labels[crowds[crowd]]]
    return places


def _overlaps(rows: DetectionTable, detections: Array, others: Array, of_union: bool) -> tuple[Array, Array, Array]:
    """Pairs of boxes of one image that overlap by at least ``CONFUSION_IOU``: places of both, and the overlap.

    Args:
        rows: The boxes.
        detections: Rows of detections, by image.
        others: Rows of ground truth, by image.
        of_union: The intersection is divided by the union, else by the detection's area.
    """
    if not len(others):
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    images, images_of_others = rows.images[detections], rows.images[others]
    starts = np.searchsorted(images_of_others, images, side="left")
    counts = np.searchsorted(images_of_others, images, side="right") - starts
    boxes = rows.xywh
    theirs = _columns(boxes[others])
    # of each detection: its place, the first of its image's ground truth, how many there are, and its box
    own = [np.arange(len(detections)), starts, counts, *_columns(boxes[detections])]
    parts = [(own[0][:0], own[0][:0], np.zeros(0))]
    for number in range(counts.max(initial=0)):  # the ground truth of each image one after another: few and long arrays
        more = own[2] > number
        if not more.all():
            own = [column[more] for column in own]
        places, starts, _, *columns = own
        other = starts + number
        left, top, right, bottom, area = columns
        width = np.minimum(right, theirs[2][other]) - np.maximum(left, theirs[0][other])
        height = np.minimum(bottom, theirs[3][other]) - np.maximum(top, theirs[1][other])
        some = np.flatnonzero((width > 0) & (height > 0))
        inner = width[some] * height[some]
        whole = area[some] + theirs[4][other[some]] - inner if of_union else area[some]
        overlap = inner / whole
        near = overlap >= CONFUSION_IOU
        found = some[near]
        parts.append((places[found], other[found], overlap[near]))
    first, second, overlap = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return first, second, overlap


def _columns(boxes: Array) -> list[Array]:
    """Left, top, right, bottom and area of boxes by left, top, width and height [N, 4]."""
    left, top, width, height = boxes.T.copy()
    return [left, top, left + width, top + height, width * height]
