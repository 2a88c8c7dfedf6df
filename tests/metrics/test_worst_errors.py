"""The selection of errors for pictures, on few boxes."""

import numpy as np

from lit_dense.metrics.detection_table import DETECTION, OBJECT
from lit_dense.metrics.tide import tide
from lit_dense.metrics.worst_errors import object_scores, rivals, size_index, worst_false_positives, worst_misses
from tests.metrics.test_tide import CAT, DOG, FAR, HERE, SHIFTED, detection, object_of, rows_of


def test_size_index__is_that_of_coco():
    rows = rows_of(
        object_of(box=(0, 0, 31, 33)),
        object_of(box=(0, 0, 32, 32)),
        (0, OBJECT, (0, 0, 200, 200), CAT, 100.0),  # a thin mask
        detection(box=(0, 0, 96, 96)),
    )
    assert size_index(rows).tolist() == [0, 1, 0, 2]


def test_object_scores__and_rivals():
    rows = rows_of(
        object_of(),
        detection(DOG, score=0.6),
        detection(DOG, score=0.7),
        detection(box=SHIFTED, score=0.65),
        detection(score=0.2),
        object_of(box=FAR),
    )
    errors = tide(rows, 2)
    assert object_scores(rows, errors).tolist() == [np.float32(0.2), 0, 0, 0, 0, 0]
    assert rivals(rows, errors, 0.3).tolist() == [2, -1, -1, -1, -1, -1]
    assert rivals(rows, errors, 0.8).tolist() == [-1] * 6


def test_worst_false_positives__of_each_class_and_size_in_turn():
    large = (300, 300, 500, 500)
    rows = rows_of(
        detection(CAT, FAR, 0.9),
        detection(CAT, FAR, 0.8),
        detection(CAT, large, 0.4),
        detection(DOG, FAR, 0.5),
        detection(DOG, FAR, 0.2),
    )
    errors = tide(rows, 2)
    assert worst_false_positives(rows, errors, 0.3, 10).tolist() == [0, 3, 2, 1]
    assert worst_false_positives(rows, errors, 0.3, 2).tolist() == [0, 3]
    assert worst_false_positives(rows, errors, 0.95, 10).tolist() == [0, 3, 2, 1, 4]  # none has the score


def test_worst_misses__the_lowest_score_and_then_the_largest_first():
    rows = rows_of(
        object_of(box=(100, 0, 110, 10)),
        object_of(box=(200, 0, 220, 20)),
        object_of(box=HERE),
        detection(box=HERE, score=0.1),
        object_of(box=(400, 0, 410, 10)),
        (0, DETECTION, (400, 0, 410, 10), CAT, 0.9),
    )
    assert worst_misses(rows, tide(rows, 1), 0.3, 10).tolist() == [1, 0, 2]
    assert worst_misses(rows, tide(rows, 1), 0.05, 10).tolist() == [1, 0]
