"""Selection of the worst errors: false positives of high scores, and objects that are hardly detected."""

import numpy as np

from ..core.object_sizes import AREA_LIMITS, OBJECT_SIZES
from .detection_table import DETECTION, OBJECT, Array, DetectionTable
from .tide import CLASSIFICATION, CORRECT, LOCALISATION, TideErrors


def size_index(rows: DetectionTable) -> Array:
    """Return COCO's size of each row, an index into ``OBJECT_SIZES`` [R].

    The size of an object is that of its mask if the data gives one, else, and for a detection, that of its box.

    Args:
        rows: Detections and ground truth.
    """
    boxes = rows.xywh
    areas = np.where((rows.kinds == DETECTION) | np.isnan(rows.scores), boxes[:, 2:].prod(1), rows.scores)
    return np.searchsorted(AREA_LIMITS, areas, side="right")


def object_scores(rows: DetectionTable, errors: TideErrors) -> Array:
    """Return the score of the detection that finds each object, 0 if none does; 0 for other rows [R].

    Args:
        rows: Detections and ground truth.
        errors: Their errors.
    """
    is_found = (rows.kinds == OBJECT) & (errors.error == CORRECT)
    return np.where(is_found, rows.scores[errors.partner], np.float32(0))


def rivals(rows: DetectionTable, errors: TideErrors, score: float) -> Array:
    """Return the best detection of each object that has the wrong class or a wrong box, -1 if there is none [R].

    Args:
        rows: Detections and ground truth.
        errors: Their errors.
        score: Smallest score of a detection.
    """
    wrong = (rows.kinds == DETECTION) & (rows.scores >= np.float32(score))
    wrong = np.flatnonzero(wrong & np.isin(errors.error, (CLASSIFICATION, LOCALISATION)))
    wrong = wrong[np.argsort(rows.scores[wrong], kind="stable")]
    best = np.full(len(rows.kinds), -1)
    best[errors.partner[wrong]] = wrong  # of equal indices, the last value is kept
    return best


def worst_false_positives(rows: DetectionTable, errors: TideErrors, score: float, number: int) -> Array:
    """Return rows of false positives, those of the highest scores of each class and size first [N].

    Args:
        rows: Detections and ground truth.
        errors: Their errors.
        score: Smallest score of a detection; if no false positive has it, those of lower scores are returned.
        number: Largest number of rows.
    """
    is_wrong = (rows.kinds == DETECTION) & (errors.error >= 0)
    wrong = np.flatnonzero(is_wrong & (rows.scores >= np.float32(score)))
    wrong = wrong if len(wrong) else np.flatnonzero(is_wrong)
    wrong = wrong[np.argsort(-rows.scores[wrong], kind="stable")]
    return _in_turn(rows, wrong)[:number]


def worst_misses(rows: DetectionTable, errors: TideErrors, score: float, number: int) -> Array:
    """Return rows of objects that no detection finds with a score, the worst of each class and size first [N].

    An object is worse if the score of the detection that finds it is lower; of objects that no detection finds, the
    larger.

    Args:
        rows: Detections and ground truth.
        errors: Their errors.
        score: Smallest score of a detection.
        number: Largest number of rows.
    """
    scores = object_scores(rows, errors)
    missed = np.flatnonzero((rows.kinds == OBJECT) & (scores < np.float32(score)))
    areas = rows.where(missed).xywh[:, 2:].prod(1)
    missed = missed[np.lexsort((-areas, scores[missed]))]
    return _in_turn(rows, missed)[:number]


def _in_turn(rows: DetectionTable, ordered: Array) -> Array:
    """Order rows so that the first of each class and size come first, then the second ones, and so on."""
    group = rows.labels[ordered].astype(np.int64) * len(OBJECT_SIZES) + size_index(rows.where(ordered))
    order = np.argsort(group, kind="stable")
    rank = np.empty(len(ordered), np.int64)
    rank[order] = np.arange(len(ordered)) - np.searchsorted(group[order], group[order])
    in_turn: Array = ordered[np.argsort(rank, kind="stable")]
    return in_turn
