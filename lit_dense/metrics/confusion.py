"""The confusion matrix of detections and objects."""

from collections.abc import Sequence

import numpy as np

from .detection_table import ABSENT, CROWD, DETECTION, NOT_EXHAUSTIVE, OBJECT, Array, DetectionTable

CONFUSION_IOU = 0.5
"""Smallest IoU of a detection and its object in the confusion matrix."""


def confusion_matrix(rows: DetectionTable, labels: Sequence[int], score: float, lvis: bool = False) -> Array:
    """Count pairs of ground truth (rows) and detections (columns), the last of each is background [K + 1, K + 1].

    Detections are matched with objects of any class, in the order of descending scores; the earlier comes first if
    scores are equal. Each detection takes the object of largest IoU, at least 0.5, that no better detection has taken;
    the later object if IoUs are equal. Unmatched detections inside a crowd of their own class are not counted. With
    ``lvis``, neither are unmatched ones of classes that are not annotated, or only in part, in the image.

    Args:
        rows: Detections and ground truth.
        labels: The K labels in ascending order, including every label of detections and objects.
        score: Smallest score of a detection, at least 0; compared in float32, the type of scores.
        lvis: Whether the images are annotated for some classes only.

    Returns:
        Counts, int64 [K + 1, K + 1].
    """
    detections = np.flatnonzero((rows.kinds == DETECTION) & (rows.scores >= np.float32(score)))
    detections = detections[best_first(rows.images[detections], rows.scores[detections])]
    objects, crowds = np.flatnonzero(rows.kinds == OBJECT), np.flatnonzero(rows.kinds == CROWD)
    matched, taken = match_boxes(rows, detections, objects)
    is_missed, is_false = np.ones(len(objects), bool), np.ones(len(detections), bool)
    is_missed[taken] = is_false[matched] = is_false[inside_crowds(rows, detections, crowds)] = False
    if lvis:
        is_false &= has_annotated_class(rows.groups, rows.kinds, detections)
    background = len(labels)
    size = background + 1
    true, predicted = (np.searchsorted(labels, rows.labels[part]) for part in (objects, detections))
    pairs = np.concatenate(
        [
            true[taken] * size + predicted[matched],
            true[is_missed] * size + background,
            background * size + predicted[is_false],
        ]
    )
    return np.bincount(pairs, minlength=size * size).reshape(size, size).astype(np.int64)


def has_annotated_class(groups: Array, kinds: Array, detections: Array) -> Array:
    """Return whether the class of each detection is annotated exhaustively in its image, or known to be absent [D].

    Args:
        groups: Number of the image and the class of each row [N].
        kinds: Kind of each row [N].
        detections: Rows of detections [D].
    """
    known = np.unique(groups[np.isin(kinds, (OBJECT, ABSENT))])
    partly = np.unique(groups[kinds == NOT_EXHAUSTIVE])
    annotated: Array = np.isin(groups[detections], known) & ~np.isin(groups[detections], partly)
    return annotated


def best_first(images: Array, scores: Array) -> Array:
    """Return the order by image, and by descending score within each image.

    Args:
        images: Image of each detection [D].
        scores: Scores of at least 0, float32 [D]. Their bits, read as integers, have the same order.
    """
    bits = (scores + np.float32(0)).view(np.int32).astype(np.int64)  # -0 becomes 0
    return np.argsort((images.astype(np.int64) << 31) - bits, kind="stable")  # one key is sorted much faster than two


def match_boxes(rows: DetectionTable, detections: Array, objects: Array) -> tuple[Array, Array]:
    """Match detections and objects; return the positions of matched detections, and those of their objects.

    Args:
        rows: Detections and ground truth.
        detections: Rows of detections, by image and best first.
        objects: Rows of objects, by image.
    """
    candidates, targets, overlap = overlaps(rows, detections, objects, of_union=True)
    # A detection with a single candidate object takes it, unless it is taken already. Worse detections can skip it.
    has_one = np.bincount(candidates, minlength=len(detections))[candidates] == 1
    taken_by = np.full(len(objects), len(detections))
    np.minimum.at(taken_by, targets[has_one], candidates[has_one])
    keep = np.flatnonzero(candidates <= taken_by[targets])
    keep = keep[np.lexsort((-targets[keep], -overlap[keep], candidates[keep]))]
    taken: dict[int, int] = {}
    matched: set[int] = set()
    for candidate, target in zip(candidates[keep].tolist(), targets[keep].tolist(), strict=True):
        if candidate not in matched and target not in taken:
            matched.add(candidate)
            taken[target] = candidate
    return np.array([*taken.values()], np.int64), np.array([*taken], np.int64)


def inside_crowds(rows: DetectionTable, detections: Array, crowds: Array) -> Array:
    """Return the positions of detections that lie at least half inside a crowd of their class."""
    inner, crowd, _ = overlaps(rows, detections, crowds, of_union=False)
    positions: Array = inner[rows.labels[detections[inner]] == rows.labels[crowds[crowd]]]
    return positions


def overlaps(
    rows: DetectionTable, detections: Array, others: Array, of_union: bool, least: float = CONFUSION_IOU
) -> tuple[Array, Array, Array]:
    """Find pairs of boxes in the same image that overlap.

    Args:
        rows: The boxes.
        detections: Rows of detections, by image.
        others: Rows of ground truth, by image.
        of_union: Whether the overlap is the intersection over union, or over the area of the detection.
        least: Smallest overlap of a pair.

    Returns:
        Positions in ``detections``, positions in ``others``, and overlaps of the pairs.
    """
    if not len(others):
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    images, gt_images = rows.images[detections], rows.images[others]
    starts = np.searchsorted(gt_images, images, side="left")
    counts = np.searchsorted(gt_images, images, side="right") - starts
    boxes = rows.xywh
    gt_columns = _columns(boxes[others])
    # For each detection: its position, first ground truth and number of ground truths of its image, and its box.
    table = [np.arange(len(detections)), starts, counts, *_columns(boxes[detections])]
    parts = [(table[0][:0], table[0][:0], np.zeros(0))]
    # Compare all detections with the first ground truth of their image, then the second, ...: few operations on long
    # arrays.
    for number in range(counts.max(initial=0)):
        has_more = table[2] > number
        if not has_more.all():
            table = [column[has_more] for column in table]
        positions, starts, _, *columns = table
        other = starts + number
        left, top, right, bottom, area = columns
        width = np.minimum(right, gt_columns[2][other]) - np.maximum(left, gt_columns[0][other])
        height = np.minimum(bottom, gt_columns[3][other]) - np.maximum(top, gt_columns[1][other])
        meeting = np.flatnonzero((width > 0) & (height > 0))
        intersection = width[meeting] * height[meeting]
        whole = area[meeting] + gt_columns[4][other[meeting]] - intersection if of_union else area[meeting]
        overlap = intersection / whole
        is_large = overlap >= least
        pairs = meeting[is_large]
        parts.append((positions[pairs], other[pairs], overlap[is_large]))
    first, second, overlap = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return first, second, overlap


def _columns(boxes: Array) -> list[Array]:
    """Convert boxes with left, top, width and height [N, 4] to left, top, right, bottom and area, five arrays [N]."""
    left, top, width, height = boxes.T.copy()
    return [left, top, left + width, top + height, width * height]
