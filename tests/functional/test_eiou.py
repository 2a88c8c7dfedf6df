import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_dense.functional.eiou import eiou_loss
from tests.builders.boxes import boxes

PREDICTED = [[0.0, 0, 2, 2], [3, 4, 50, 60], [0, 0, 1, 1]]
TARGET = [[1.0, 1, 3, 3], [10, 1, 45, 75], [2, 2, 3, 3]]


def formula(a, b):
    """EIoU and IoU, as written in the paper."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = (((x + z) / 2, (y + t) / 2, z - x, t - y) for x, y, z, t in (a, b))
    width, height = max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])
    common = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    iou = common / (aw * ah + bw * bh - common)
    distance = ((ax - bx) ** 2 + (ay - by) ** 2) / (width**2 + height**2)
    return 1 - iou + distance + (aw - bw) ** 2 / width**2 + (ah - bh) ** 2 / height**2, iou


def test_eiou_loss__worked_value():
    loss = eiou_loss(torch.tensor([[0.0, 0, 4, 2]]), torch.tensor([[0.0, 0, 2, 2]]))
    assert loss.item() == pytest.approx(0.5 + 1 / 20 + 4 / 16)


@given(boxes(), boxes(), st.sampled_from([0.0, 0.5, 2.0]))
def test_eiou_loss__equals_the_formula(predicted, target, gamma):
    cost, iou = formula(predicted, target)
    loss = eiou_loss(torch.tensor([predicted]).double(), torch.tensor([target]).double(), gamma)
    np.testing.assert_allclose(loss.numpy(), [cost * iou**gamma], atol=1e-6)


def test_eiou_loss__gradient_is_that_of_the_formula():
    predicted = torch.tensor(PREDICTED, dtype=torch.float64, requires_grad=True)
    target = torch.tensor(TARGET, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: eiou_loss(x, target), predicted)


def test_eiou_loss__no_gradient_flows_through_the_focal_weight():
    predicted, target = torch.tensor(PREDICTED, requires_grad=True), torch.tensor(TARGET)
    plain, focal = (torch.autograd.grad(eiou_loss(predicted, target, gamma).sum(), predicted)[0] for gamma in (0, 0.5))
    weights = torch.tensor([formula(a, b)[1] ** 0.5 for a, b in zip(PREDICTED, TARGET, strict=True)])
    torch.testing.assert_close(focal, plain * weights[:, None])
    assert plain[2].any()  # disjoint boxes are pulled together
    assert not focal[2].any()  # unless they are weighed by their IoU
