"""Calibration error of detections: worked values."""

import numpy as np
import pytest
import torch

from lit_dense.core.errors import UsageError
from lit_dense.metrics import DetectionMAP
from lit_dense.metrics.calibration import reliability, true_positives


def box(x, size=10.0):
    return [x, 0.0, x + size, 10.0]


def detections(boxes, scores, labels):
    return {"boxes": torch.tensor(boxes), "scores": torch.tensor(scores), "labels": torch.tensor(labels)}


def targets(boxes, labels, **fields):
    return {"boxes": torch.tensor(boxes).view(-1, 4), "labels": torch.tensor(labels, dtype=torch.int64), **fields}


def filled(**arguments):
    metric = DetectionMAP(["a", "b"], **arguments)
    found = detections([box(0), box(0), box(50), box(0), box(100)], [0.96, 0.92, 0.65, 0.55, 0.05], [0, 0, 1, 1, 0])
    metric.update([found], [targets([box(0), box(50)], [0, 1])], image_ids=[1])
    return metric


def test_ece__worked_value():
    # .9 to 1 holds .96 (true) and .92 (second on the same object); .5 to .6 the false .55; .6 to .7 the true .65
    number = filled(calibration_score=0.3).compute()["ece"]
    expected = (2 * abs(0.5 - 0.94) + abs(0 - 0.55) + abs(1 - 0.65)) / 4
    torch.testing.assert_close(number, torch.tensor(expected))


def test_ece__has_the_limit_of_detections_of_ap():
    boxes = torch.tensor([[float(place), 0, place + 9, 9] for place in range(150)])
    metric = DetectionMAP(["a"], calibration_score=0.0)
    found = {"boxes": boxes, "scores": torch.full((150,), 0.5), "labels": torch.zeros(150).long()}
    metric.update([found], [{"boxes": boxes[149:], "labels": torch.zeros(1).long()}])
    numbers = metric.compute()
    assert (float(numbers["mar_100"]), float(numbers["ece"])) == (0, 0.5)  # the 150th would be a true positive


def test_ece__is_there_on_request_only():
    assert "ece" not in filled().compute()
    none = DetectionMAP(["a"], calibration_score=0.5)
    assert none.compute()["ece"] == -1
    with pytest.raises(UsageError, match="calibration_score must be in"):
        DetectionMAP(calibration_score=2)
    result = filled(calibration_score=0.3).compute()
    assert result["map/a"] == filled().compute()["map/a"]


def test_true_positives__in_crowds_do_not_count():
    metric = DetectionMAP(["a", "b"])
    crowd = targets([box(0, 100.0)], [0], iscrowd=torch.tensor([1]))
    metric.update([detections([box(5), box(20)], [0.8, 0.7], [0, 1])], [crowd], image_ids=[1])
    metric.compute()
    rows, is_true = true_positives(metric.evaluation.rows)
    assert metric.evaluation.rows.labels[rows].tolist() == [1]
    assert is_true.tolist() == [False]


def test_true_positives__classes_that_are_not_annotated_do_not_count():
    metric = DetectionMAP(["a", "b", "c"], protocol="lvis")
    target = targets(
        [box(0)], [0], neg_labels=torch.tensor([1]), not_exhaustive_labels=torch.tensor([0], dtype=torch.int64)
    )
    found = detections([box(0), box(50), box(50), box(50)], [0.9, 0.8, 0.7, 0.6], [0, 0, 1, 2])
    metric.update([found], [target], image_ids=[1])
    metric.compute()
    table = metric.evaluation.rows
    rows, is_true = true_positives(table, lvis=True)
    assert dict(zip(table.scores[rows].round(1).tolist(), is_true.tolist(), strict=True)) == pytest.approx(
        {np.float32(0.9): True, np.float32(0.7): False}
    )


def test_reliability__scores_of_one_are_in_the_last_bin():
    curve = reliability(np.array([1.0, 0.0], np.float32), np.array([True, False]))
    assert curve.counts.tolist() == [1] + [0] * 8 + [1]
    assert curve.error == 0
