"""Self-check of an evaluator on a small scene with results computed by hand."""

import numpy as np

from ..detection_table import ABSENT, CROWD, DETECTION, NOT_EXHAUSTIVE, OBJECT, Array, DetectionTable
from .base import NUM_AREAS, NUM_RECALLS, NUM_THRESHOLDS, Backend, Protocol, Tables

CLASSES = {0: "found", 1: "once", 2: "absent"}
LIMITS = (1, 2, 3)

_SPLIT = 6  # number of IoU thresholds up to .75; one detection has IoU .78
_NAN = float("nan")
_A, _B, _C, _CROWD = (0, 0, 20, 20), (100, 0, 150, 50), (0, 0, 200, 200), (300, 300, 400, 400)
_NEAR_B = (100, 0, 150, 39)  # IoU .78 with _B
_ROWS: tuple[tuple[int, int, int, tuple[int, ...], float], ...] = (
    # image, class, kind, box, score or area (NaN: that of the box)
    (0, 0, DETECTION, (200, 200, 250, 250), 0.95),  # nothing is there
    (0, 0, DETECTION, _A, 0.9),
    (0, 0, DETECTION, _NEAR_B, 0.8),
    (0, 0, DETECTION, _B, 0.7),  # the fourth of its image, beyond the last limit
    (0, 0, OBJECT, _A, _NAN),
    (0, 0, OBJECT, _B, 500.0),  # small by its area, though its box is not
    (0, 0, NOT_EXHAUSTIVE, (0, 0, 0, 0), _NAN),
    (1, 0, DETECTION, (310, 310, 320, 320), 0.99),  # inside the crowd
    (1, 0, DETECTION, _C, 0.8),  # ties with a detection of image 0, and ranks after it
    (1, 1, DETECTION, _A, 0.9),  # LVIS: not annotated and not known to be absent
    (1, 0, OBJECT, _C, _NAN),
    (1, 0, CROWD, _CROWD, _NAN),
    (2, 0, DETECTION, (0, 0, 10, 10), 0.85),  # nothing is there
    (2, 1, DETECTION, _A, 0.5),
    (2, 2, DETECTION, _A, 0.5),  # a class without any object
    (2, 1, OBJECT, _A, _NAN),
    (2, 0, ABSENT, (0, 0, 0, 0), _NAN),
)


def scene() -> DetectionTable:
    """Make the table of the scene: three images, one of them without the class of the others."""
    images, labels, kinds, boxes, scores = zip(*_ROWS, strict=True)
    return DetectionTable(
        image_ids=np.arange(3),
        images=np.array(images),
        boxes=np.array(boxes, np.float32),
        labels=np.array(labels, np.int32),
        kinds=np.array(kinds, np.int32),
        scores=np.array(scores, np.float32),
    )


def find_fault(backend: Backend) -> str:
    """Check the results of a backend on the scene; return a description of the fault, empty if there is none."""
    coco = scene()
    coco = coco.where(~np.isin(coco.kinds, (ABSENT, NOT_EXHAUSTIVE)))
    if not _equal(backend.tables(coco, CLASSES, "coco", LIMITS), _expected("coco")):
        return "its COCO results on a test case are wrong"
    lvis = scene()
    lvis = lvis.where((lvis.kinds != CROWD) & (lvis.scores != np.float32(0.99)))
    if not _equal(backend.tables(lvis, CLASSES, "lvis", LIMITS[-1:]), _expected("lvis")):
        return "its LVIS results on a test case are wrong"
    matches = {(one.image, one.label): one for one in backend.matches(coco, CLASSES, LIMITS[-1])}
    if {key: one.num_objects for key, one in matches.items()} != {(0, 0): 2, (1, 0): 1, (1, 1): 0} | {
        (2, 0): 0,
        (2, 1): 1,
        (2, 2): 0,
    }:
        return "it loses images or objects of a test case"
    true, crowd = matches[0, 0].matched & ~matches[0, 0].ignored, matches[1, 0]
    if (
        true[:_SPLIT].tolist() != [[False, True, True]] * _SPLIT
        or true[_SPLIT:].tolist() != [[False, True, False]] * (NUM_THRESHOLDS - _SPLIT)
        or crowd.ignored.tolist() != [[True, False]] * NUM_THRESHOLDS
        or not crowd.matched.all()
        or not np.allclose(crowd.scores, [0.99, 0.8])
    ):
        return "its matches on a test case are wrong"
    return ""


def _equal(computed: Tables, expected: Tables) -> bool:
    """Compare all arrays, with a tolerance because scores are stored as float32."""
    return all(
        values.shape == getattr(expected, name).shape
        and np.allclose(values, getattr(expected, name), rtol=0, atol=1e-6)
        for name, values in vars(computed).items()
    )


def _expected(protocol: Protocol) -> Tables:
    """Make the expected tables of the scene.

    Detections of the first class with COCO, by score: 0.99 inside the crowd, 0.95 false positive, 0.9 true positive,
    0.85 false positive, 0.8 true positive up to IoU 0.75, 0.8 true positive. With LVIS the first is excluded, the
    second is ignored, and the fifth is ignored if it is not a true positive.

    A curve is given as steps. Each step has a recall up to which it reaches, the largest precision from there on, and
    the score at which the recall is reached. Recall 0 is reached at the first detection, even if that is a false
    positive.
    """
    coco = protocol == "coco"
    low, high = slice(None, _SPLIT), slice(_SPLIT, None)
    limits = len(LIMITS) if coco else 1
    tables = Tables(
        precision=np.full((NUM_THRESHOLDS, NUM_RECALLS, len(CLASSES), NUM_AREAS), -1.0),
        scores=np.full((NUM_THRESHOLDS, NUM_RECALLS, len(CLASSES), NUM_AREAS), -1.0),
        recall=np.full((NUM_THRESHOLDS, len(CLASSES), NUM_AREAS, limits), -1.0),
    )
    every, small, large = 0, 1, 3
    third, two_thirds = 1 / 3, 2 / 3
    first = 0.99 if coco else 0.95
    if coco:
        _steps(tables, low, 0, every, first, (third, 0.6, 0.9), (1, 0.6, 0.8))
        _steps(tables, high, 0, every, first, (third, 0.5, 0.9), (two_thirds, 0.4, 0.8))
    else:
        _steps(tables, low, 0, every, first, (third, 1, 0.9), (1, 0.75, 0.8))
        _steps(tables, high, 0, every, first, (third, 1, 0.9), (two_thirds, two_thirds, 0.8))
    _steps(tables, low, 0, small, first, (0.5, 1, 0.9), (1, two_thirds, 0.8))
    _steps(tables, high, 0, small, first, (0.5, 1, 0.9))
    _steps(tables, slice(None), 0, large, first, (1, 1, 0.8))
    for area in (every, small):
        _steps(tables, slice(None), 1, area, (0.9 if coco else 0.5), (1, 0.5 if coco else 1, 0.5))
    recall = tables.recall
    recall[:, 1, [every, small]] = 1
    recall[:, 0, every], recall[low, 0, every, -1] = ((0, two_thirds, two_thirds) if coco else two_thirds), 1
    recall[:, 0, small], recall[low, 0, small, -1] = ((0, 0.5, 0.5) if coco else 0.5), 1
    recall[:, 0, large] = (0, 1, 1) if coco else 1
    return tables


def _steps(
    tables: Tables, thresholds: slice, label: int, area: int, first: float, *steps: tuple[float, float, float]
) -> None:
    """Write a curve: the score at recall 0, then steps of largest recall, precision and score."""
    recalls = np.linspace(0, 1, NUM_RECALLS)
    precision: Array = np.zeros(NUM_RECALLS)
    scores: Array = np.zeros(NUM_RECALLS)
    for recall, value, score in reversed(steps):
        reached = recalls <= recall
        precision[reached], scores[reached] = value, score
    scores[0] = first
    tables.precision[thresholds, :, label, area] = precision
    tables.scores[thresholds, :, label, area] = scores
