"""Tests of the comparison of an exported file with its model."""

import pytest
import torch

from lit_dense.core.errors import UsageError
from lit_dense.export.verification import Difference, as_detections, check, compare, letterbox


def detections(*rows):
    numbers = torch.tensor(rows, dtype=torch.float32).view(-1, 6)
    return [{"boxes": numbers[:, :4], "scores": numbers[:, 4], "labels": numbers[:, 5].long()}]


BOX, OTHER = (10, 10, 30, 40, 0.9, 1), (50, 50, 70, 90, 0.4, 0)


def test_compare__order_of_detections_does_not_matter():
    difference = compare(detections(BOX, OTHER), detections(OTHER, BOX), (100, 100))
    assert difference == Difference(1, 2, 0, 0.0, 0.0)


def test_compare__reports_the_largest_differences():
    near = (10, 10, 30, 40.05, 0.89, 1)
    difference = compare(detections(BOX, OTHER), detections(near, OTHER), (100, 100))
    assert difference.unmatched == 0
    assert difference.score == pytest.approx(0.01, abs=1e-6)
    assert difference.box == pytest.approx(0.05, abs=1e-5)


@pytest.mark.parametrize(
    ("found", "unmatched"),
    [((), 2), ((BOX,), 1), ((BOX, OTHER, OTHER), 1), ((BOX, (*OTHER[:5], 2)), 1), ((BOX, (51, *OTHER[1:])), 1)],
    ids=["none", "one missing", "one more", "other label", "moved"],
)
def test_compare__detections_without_a_counterpart_are_counted(found, unmatched):
    assert compare(detections(BOX, OTHER), detections(*found), (100, 100)).unmatched == unmatched


@pytest.mark.parametrize("bad", [Difference(4, 400, 9, 0.0, 0.0), Difference(4, 400, 0, 0.01, 0.0)])
def test_check__a_difference_over_the_tolerance_is_an_error(bad):
    check(Difference(4, 400, 4, 1e-6, 1e-4), "model.onnx")
    with pytest.raises(UsageError, match=r"model\.onnx was written but does not compute"):
        check(bad, "model.onnx")


def test_as_detections__drops_rows_of_padding():
    outputs = torch.rand(1, 3, 4), torch.tensor([[0.9, 0.5, 0.0]]), torch.tensor([[1, 0, -1]])
    (found,) = as_detections(outputs, 0.4)
    assert found["labels"].tolist() == [1, 0]


@pytest.mark.parametrize("shape", [(40, 80), (200, 50), (96, 96), (1, 400)])
def test_letterbox__keeps_the_aspect_ratio(shape):
    image = torch.full((3, *shape), 200, dtype=torch.uint8)
    canvas, factor = letterbox(image, (96, 96))
    assert canvas.shape == (3, 96, 96)
    assert factor == pytest.approx(96 / max(shape))
    filled = (canvas[0] > 100).nonzero()
    expected = [max(1, round(side * factor)) for side in shape]
    assert (filled.amax(0) + 1).tolist() == expected
