"""Calibration error of detections: the difference of scores and shares of true positives."""

from typing import NamedTuple

import numpy as np

from .confusion import best_first, inside_crowds, match_boxes
from .detection_table import ABSENT, CROWD, DETECTION, NOT_EXHAUSTIVE, OBJECT, Array, DetectionTable

BINS = 10


class Reliability(NamedTuple):
    """Reliability curve: detections in equal bins of the score.

    Args:
        counts: Number of detections of each bin [B].
        scores: Mean score of each bin, 0 without detections [B].
        precision: Share of true positives of each bin, 0 without detections [B].
    """

    counts: Array
    scores: Array
    precision: Array

    @property
    def error(self) -> float:
        """Expected calibration error: mean of |precision - score|, weighted by detections; -1 without detections."""
        if not (total := self.counts.sum()):
            return -1.0
        return float((self.counts * np.abs(self.precision - self.scores)).sum() / total)


def true_positives(rows: DetectionTable, lvis: bool = False) -> tuple[Array, Array]:
    """Match detections with objects of their class, best first, at IoU 0.5.

    Each detection takes the object of largest IoU that no better detection has taken. Unmatched detections inside a
    crowd of their class are left out. With ``lvis``, so are detections of classes that are not annotated in the image,
    and unmatched ones of classes that are not annotated exhaustively.

    Args:
        rows: Detections and ground truth.
        lvis: Whether the images are annotated for some classes only.

    Returns:
        Rows of the detections that count [D]; and whether each is a true positive [D].
    """
    group = rows.images.astype(np.int64) * (int(rows.labels.max(initial=0)) + 1) + rows.labels
    sorted_rows = np.argsort(group, kind="stable")
    columns = {name: getattr(rows, name)[sorted_rows] for name in ("boxes", "labels", "kinds", "scores")}
    table = DetectionTable(rows.image_ids, images=group[sorted_rows], **columns)
    detections = np.flatnonzero(table.kinds == DETECTION)
    detections = detections[best_first(table.images[detections], table.scores[detections])]
    objects, crowds = np.flatnonzero(table.kinds == OBJECT), np.flatnonzero(table.kinds == CROWD)
    is_true = np.zeros(len(detections), bool)
    is_true[match_boxes(table, detections, objects)[0]] = True
    counts = np.ones(len(detections), bool)
    counts[inside_crowds(table, detections, crowds)] = False
    if lvis:
        known = np.unique(table.images[np.isin(table.kinds, (OBJECT, ABSENT))])
        partly = np.unique(table.images[table.kinds == NOT_EXHAUSTIVE])
        counts &= np.isin(table.images[detections], known) & ~np.isin(table.images[detections], partly)
    counts |= is_true
    return sorted_rows[detections[counts]], is_true[counts]


def reliability(scores: Array, is_true: Array, least: float = 0.0) -> Reliability:
    """Compute the reliability curve of detections with at least a score.

    Args:
        scores: Score of each detection [D].
        is_true: Whether a detection is a true positive [D].
        least: Smallest score of a detection.
    """
    kept = scores >= np.float32(least)
    scores, is_true = scores[kept].astype(np.float64), is_true[kept].astype(np.float64)
    index = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    counts, sums, trues = (np.bincount(index, weights, BINS) for weights in (None, scores, is_true))
    number = np.maximum(counts, 1)
    return Reliability(counts, sums / number, trues / number)
