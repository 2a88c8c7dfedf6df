import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_dense.functional.iou import enlarged, iou_loss, paired_iou
from tests.builders.boxes import assert_finite_without_area, boxes

FORMS = ["linear", "log", "square"]


def pixels(box):
    """The unit squares that a box with whole corners covers."""
    return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}


@given(boxes(), boxes())
def test_paired_iou__is_the_share_of_common_pixels(predicted, target):
    a, b = pixels(predicted), pixels(target)
    iou = paired_iou(torch.tensor([predicted]).double(), torch.tensor([target]).double())
    assert iou.item() == pytest.approx(len(a & b) / len(a | b))


def test_paired_iou__compares_boxes_of_the_same_row():
    predicted = torch.tensor([[0.0, 0, 2, 2], [0, 0, 4, 2], [0, 0, 4, 3], [0, 0, 1, 1]])
    target = torch.tensor([[1.0, 1, 3, 3], [0, 0, 2, 2], [0, 0, 4, 2], [2, 2, 3, 3]])
    torch.testing.assert_close(
        paired_iou(predicted, target), torch.tensor([0.142857, 0.5, 0.666667, 0.0]), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(("form", "cost"), [("linear", 0.857143), ("log", 1.945910), ("square", 0.979592)])
def test_iou_loss__worked_values_of_an_iou_of_a_seventh(form, cost):
    loss = iou_loss(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 1, 3, 3]]), form)
    assert loss.item() == pytest.approx(cost, abs=1e-6)


@pytest.mark.parametrize(("form", "cost"), [("linear", 1.0), ("log", -math.log(1e-6)), ("square", 1.0)])
def test_iou_loss__of_disjoint_boxes_is_finite_and_has_no_gradient(form, cost):
    predicted = torch.tensor([[0.0, 0, 1, 1]], requires_grad=True)
    loss = iou_loss(predicted, torch.tensor([[2.0, 2, 3, 3]]), form)
    loss.sum().backward()
    assert loss.item() == pytest.approx(cost)
    assert not predicted.grad.any()


@given(boxes(), boxes(), st.integers(-24, -6))
def test_paired_iou__does_not_depend_on_the_unit(predicted, target, exponent):
    predicted, target = torch.tensor([predicted]).float(), torch.tensor([target]).float()
    small = paired_iou(predicted * 2.0**exponent, target * 2.0**exponent)
    torch.testing.assert_close(small, paired_iou(predicted, target), rtol=1e-6, atol=0)


def test_paired_iou__boxes_in_fractions_of_an_image():
    box = torch.tensor([[0.3, 0.3, 0.3002, 0.3002], [0, 0, 1, 1], [0.1, 0.1, 0.10001, 0.9]])
    torch.testing.assert_close(paired_iou(box, box), torch.ones(3))
    shifted = torch.tensor([[0.0, 0.0, 2e-4, 2e-4]], requires_grad=True)
    iou_loss(shifted, torch.tensor([[1e-4, 1e-4, 3e-4, 3e-4]])).sum().backward()
    whole = torch.tensor([[0.0, 0, 2, 2]], requires_grad=True)
    iou_loss(whole, torch.tensor([[1.0, 1, 3, 3]])).sum().backward()
    torch.testing.assert_close(shifted.grad, whole.grad * 1e4)  # as far on a way 10,000 times shorter


def test_enlarged__boxes_in_pixels_are_not_changed():
    corner = torch.rand(200, 2) * 1000
    predicted, target = (torch.cat([corner, corner + 2 + torch.rand(200, 2) * 300], 1) for _ in range(2))
    assert all(
        torch.equal(now, before) for now, before in zip(enlarged(predicted, target), (predicted, target), strict=True)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_paired_iou__half_precision_is_computed_in_single(dtype):
    box = torch.tensor([[0.25, 0.25, 0.5, 0.5], [10, 10, 500, 500]], dtype=dtype)
    assert paired_iou(box, box).tolist() == [1.0, 1.0]  # 490 squared is out of the range of float16


@pytest.mark.parametrize("form", FORMS)
def test_iou_loss__boxes_without_area_are_finite(form):
    assert_finite_without_area(lambda predicted, target: iou_loss(predicted, target, form), [900, 900, 900, 900])


@pytest.mark.parametrize("form", FORMS)
def test_iou_loss__gradient_is_that_of_the_formula(form):
    predicted = torch.tensor([[0.0, 0, 2, 2], [3, 4, 50, 60], [0, 0, 1, 1]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[1.0, 1, 3, 3], [10, 1, 45, 75], [2, 2, 3, 3]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: iou_loss(x, target, form), predicted)
    small = (predicted.detach() * 0.01).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: iou_loss(x, target * 0.01, form), small)
