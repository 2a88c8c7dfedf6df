"""Calibration error of detections: the difference of scores and shares of true positives."""

from typing import NamedTuple

import numpy as np

from .detection_table import Array, DetectionTable
from .matching import match_own_class

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
    """Return the detections that count and whether each is a true positive, as :func:`match_own_class` finds them.

    Args:
        rows: Detections and ground truth.
        lvis: Whether the images are annotated for some classes only.

    Returns:
        Rows of the detections that count [D]; and whether each is a true positive [D].
    """
    found = match_own_class(rows, lvis)
    return found.detections[found.counts], found.objects[found.counts] >= 0


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
