import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_dense.functional.iou import iou_loss, paired_iou

FORMS = ["linear", "log", "square"]


@st.composite
def boxes(draw):
    x, y = (draw(st.integers(-50, 50)) for _ in range(2))
    return x, y, x + draw(st.integers(1, 40)), y + draw(st.integers(1, 40))


def pixels(box):
    """The unit squares that a box with whole corners covers."""
    return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}


@given(boxes(), boxes())
def test_iou_is_the_share_of_common_pixels(predicted, target):
    a, b = pixels(predicted), pixels(target)
    iou = paired_iou(torch.tensor([predicted]).double(), torch.tensor([target]).double())
    assert iou.item() == pytest.approx(len(a & b) / len(a | b))


def test_boxes_are_compared_with_the_one_in_the_same_row():
    predicted = torch.tensor([[0.0, 0, 2, 2], [0, 0, 4, 2], [0, 0, 4, 3], [0, 0, 1, 1]])
    target = torch.tensor([[1.0, 1, 3, 3], [0, 0, 2, 2], [0, 0, 4, 2], [2, 2, 3, 3]])
    torch.testing.assert_close(
        paired_iou(predicted, target), torch.tensor([0.142857, 0.5, 0.666667, 0.0]), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(("form", "cost"), [("linear", 0.857143), ("log", 1.945910), ("square", 0.979592)])
def test_worked_values_of_an_iou_of_a_seventh(form, cost):
    loss = iou_loss(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 1, 3, 3]]), form)
    assert loss.item() == pytest.approx(cost, abs=1e-6)


@pytest.mark.parametrize(("form", "cost"), [("linear", 1.0), ("log", -math.log(1e-6)), ("square", 1.0)])
def test_disjoint_boxes_cost_a_finite_amount_and_have_no_gradient(form, cost):
    predicted = torch.tensor([[0.0, 0, 1, 1]], requires_grad=True)
    loss = iou_loss(predicted, torch.tensor([[2.0, 2, 3, 3]]), form)
    loss.sum().backward()
    assert loss.item() == pytest.approx(cost)
    assert not predicted.grad.any()


@pytest.mark.parametrize("form", FORMS)
def test_gradient_is_that_of_the_formula(form):
    predicted = torch.tensor([[0.0, 0, 2, 2], [3, 4, 50, 60], [0, 0, 1, 1]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[1.0, 1, 3, 3], [10, 1, 45, 75], [2, 2, 3, 3]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: iou_loss(x, target, form), predicted)
