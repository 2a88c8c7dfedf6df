"""Values and gradients of the box losses of boxes, those of the authors' code where it exists."""

import pytest
import torch

from lit_dense.functional import ciou_loss, diou_loss, eiou_loss, giou_loss, iou_loss, mpdiou_loss, nwd_loss, siou_loss
from lit_dense.functional.box_pairs import box_pairs, overlap_of_scaled
from lit_dense.functional.iou_variant import IoUVariant
from lit_dense.functional.nwd import normalized_wasserstein
from lit_dense.functional.wiou import wiou_focus, wiou_loss

PREDICTED = torch.tensor([[10, 10, 30, 40], [12, 8, 34, 36], [50, 50, 70, 60], [0, 0, 10, 10.0]]).double()
TARGET = torch.tensor([[12, 12, 32, 36], [12, 8, 34, 36], [40, 44, 60, 64], [20, 20, 40, 30.0]]).double()
MEAN = torch.tensor(0.99 + 0.01 * (1 - (2 / 3 + 1 + 0.2) / 4)).double()
IMAGE = torch.tensor([[100, 160]] * 4)
FOCUS = {"focus_alpha": 1.9, "focus_delta": 3.0}


def variant(loss, **arguments):
    return lambda x, y: loss(x, y, variant=IoUVariant(**arguments))


def wiou(version):
    def loss(x, y):
        cost = 1 - box_pairs(x, y).iou
        return wiou_loss(x, y) * wiou_focus(cost, MEAN, version, **FOCUS)

    return loss


def mpdiou(x, y):
    return mpdiou_loss(x, y, IMAGE[: len(x)])


WORKED = {
    "siou": (siou_loss, [0.339474, 0, 0.904956, 1.359742], [-0.033430, -0.021241, -0.033877, 0.020343]),
    "wiou v1": (wiou_loss, [0.334540, 0, 0.864632, 1.506818], [-0.031459, -0.020409, -0.031459, 0.020892]),
    "wiou v2": (wiou("v2"), [0.193599, 0, 0.775161, 1.510346], [-0.018206, -0.011811, -0.018206, 0.012090]),
    "wiou v3": (wiou("v3"), [0.206606, 0, 0.948514, 1.816231], [-0.019429, -0.012604, -0.019429, 0.012903]),
    "mpdiou": (mpdiou, [0.334120, 0, 0.807079, 1.058989], [-0.030977, -0.020688, -0.030977, 0.020801]),
    "inner iou": (
        variant(iou_loss, inner=0.75),
        [0.373494, 0, 0.875, 1],
        [-0.038104, -0.018871, -0.040282, 0.018871],
    ),
    "inner ciou": (
        variant(ciou_loss, inner=0.75),
        [0.377170, 0, 0.954783, 1.411689],
        [-0.039407, -0.018010, -0.041754, 0.019455],
    ),
    "focaler iou": (
        variant(iou_loss, focaler=(0, 0.95)),
        [0.298246, 0, 0.789474, 1],
        [-0.032489, -0.021659, -0.032489, 0.021659],
    ),
    "alpha ciou": (
        variant(ciou_loss, alpha=3.0),
        [0.703704, 0, 0.992469, 1.068921],
        [-0.041152, -0.027435, -0.041152, 0.027435],
    ),
    "shape iou 0": (
        variant(diou_loss, shape=0.0),
        [0.337486, 0, 0.889677, 1.421984],
        [-0.032194, -0.019957, -0.032309, 0.021402],
    ),
    "shape iou 1": (
        variant(diou_loss, shape=1.0),
        [0.337525, 0, 0.889677, 1.383228],
        [-0.032320, -0.019940, -0.032441, 0.021254],
    ),
    "nwd": (nwd_loss, [0.253468, 0.000025, 0.583950, 0.920464], [-0.015587, -0.015587, -0.015587, 0.031175]),
}
LOSSES = {
    "iou": iou_loss,
    "giou": giou_loss,
    "diou": diou_loss,
    "ciou": ciou_loss,
    "eiou": eiou_loss,
    "siou": siou_loss,
    "wiou": wiou_loss,
    "mpdiou": lambda x, y, variant: mpdiou_loss(x, y, IMAGE[: len(x)], variant),
}
ALL = {"inner": 0.8, "focaler": (0.1, 0.9), "alpha": 2.0, "shape": 1.0}


@pytest.mark.parametrize("name", WORKED)
def test_box_losses__worked_values_and_gradients(name):
    loss, values, gradient = WORKED[name]
    predicted = PREDICTED.clone().requires_grad_()
    actual = loss(predicted, TARGET)
    torch.testing.assert_close(actual, torch.tensor(values).double(), rtol=0, atol=1e-6)
    (slopes,) = torch.autograd.grad(actual.sum(), predicted)
    torch.testing.assert_close(slopes[0], torch.tensor(gradient).double(), rtol=0, atol=1e-6)
    assert slopes.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("scale", [1.0, 2.0**-10])
def test_variants__neutral_arguments_change_nothing(name, scale):
    predicted, target = PREDICTED * scale, TARGET * scale
    neutral = IoUVariant(1.0, (0.0, 1.0), 1.0, None)
    plain = LOSSES[name](predicted, target, variant=IoUVariant())
    torch.testing.assert_close(LOSSES[name](predicted, target, variant=neutral), plain)


@pytest.mark.parametrize("name", sorted(LOSSES.keys() - {"ciou", "wiou"}))  # these have detached factors
def test_variants__gradcheck(name):
    rows = torch.tensor([0, 2])
    predicted, target = PREDICTED[rows].clone().requires_grad_(), TARGET[rows]
    for arguments in ({}, {"alpha": 0.5}, ALL):
        chosen = IoUVariant(**arguments)
        assert torch.autograd.gradcheck(lambda x, v=chosen: LOSSES[name](x, target, variant=v), predicted)


@pytest.mark.parametrize("name", LOSSES)
def test_variants__translation_changes_nothing(name):
    shift = torch.tensor([7.0, -3.0, 7.0, -3.0]).double()
    chosen = IoUVariant(**ALL)
    moved = LOSSES[name](PREDICTED + shift, TARGET + shift, variant=chosen)
    torch.testing.assert_close(moved, LOSSES[name](PREDICTED, TARGET, variant=chosen))


def test_variants__inner_and_focaler_replace_the_iou_of_every_loss():
    pairs = box_pairs(PREDICTED, TARGET)
    inner = overlap_of_scaled(pairs, 1.25)
    mapped = ((pairs.iou - 0.3) / 0.5).clamp(0, 1)
    for name in ("iou", "giou", "diou", "ciou", "eiou", "siou", "mpdiou"):
        loss = LOSSES[name]
        plain = loss(PREDICTED, TARGET, variant=IoUVariant())
        torch.testing.assert_close(loss(PREDICTED, TARGET, variant=IoUVariant(inner=1.25)), plain + pairs.iou - inner)
        focaler = loss(PREDICTED, TARGET, variant=IoUVariant(focaler=(0.3, 0.8)))
        torch.testing.assert_close(focaler, plain + pairs.iou - mapped)


def test_variants__the_trade_off_of_ciou_is_that_of_the_plain_iou():
    plain, inner = (ciou_loss(PREDICTED, TARGET, IoUVariant(inner=ratio)) for ratio in (1.0, 0.5))
    pairs = box_pairs(PREDICTED, TARGET)
    torch.testing.assert_close(inner - plain, pairs.iou - overlap_of_scaled(pairs, 0.5))


def test_variants__shape_of_a_square_target_weights_nothing():
    square = torch.tensor([[10.0, 10, 30, 30]]).double()
    for name in ("diou", "eiou", "siou", "mpdiou"):
        one, two = (LOSSES[name](PREDICTED[:1], square, variant=IoUVariant(shape=s)) for s in (0.0, 3.0))
        torch.testing.assert_close(one, two)
    torch.testing.assert_close(
        LOSSES["siou"](PREDICTED, TARGET, variant=IoUVariant(shape=0.0)), siou_loss(PREDICTED, TARGET)
    )


def test_siou__is_the_form_with_the_arcsine_and_grows_with_the_distance():
    pairs = box_pairs(PREDICTED, TARGET)
    dx, dy = pairs.offset.unbind(1)
    short = torch.minimum(dx.abs(), dy.abs()) / pairs.offset.norm(dim=1)
    gamma = 2 - torch.sin(2 * torch.arcsin(short)).nan_to_num()
    delta = (1 - torch.exp(-gamma[:, None] * (pairs.offset / pairs.enclosing) ** 2)).sum(1)
    differing = (pairs.sides - pairs.target_sides).abs() / pairs.sides.maximum(pairs.target_sides)
    omega = ((1 - torch.exp(-differing)) ** 4).sum(1)
    torch.testing.assert_close(siou_loss(PREDICTED, TARGET), 1 - pairs.iou + (delta + omega) / 2)
    here = torch.tensor([[0.0, 0, 10, 10]]).double()
    far = [siou_loss(here, here + offset).item() for offset in (12, 30, 300)]
    assert far == sorted(far)


def test_wiou_focus__factor_by_relative_cost():
    beta = torch.tensor([0.25, 0.5, 1.0, 3.0, 6.0]).double()
    factor = wiou_focus(beta, torch.tensor(1.0).double(), "v3", **FOCUS)
    torch.testing.assert_close(factor, beta / (3 * 1.9 ** (beta - 3)))
    assert factor[3] == 1
    best = wiou_focus(1 / torch.tensor([1.9]).double().log(), torch.tensor(1.0).double(), "v3", **FOCUS)
    assert best.item() == pytest.approx(1.310, abs=1e-3)
    assert wiou_focus(torch.ones(2), torch.tensor(0.0)).isfinite().all()


def test_nwd__of_all_pairs():
    matrix = normalized_wasserstein(PREDICTED[None], TARGET[:, None])
    torch.testing.assert_close(1 - matrix.diagonal(), nwd_loss(PREDICTED, TARGET))
    predicted = TARGET.clone().requires_grad_()
    equal = nwd_loss(predicted, TARGET)
    (slopes,) = torch.autograd.grad(equal.sum(), predicted)
    assert (slopes == 0).all()
    assert equal.max() < 3e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_distances__of_boxes_in_half_precision_are_those_in_float32(dtype):
    predicted = torch.tensor([[0.0, 0, 1024, 512], [8, 8, 16, 16]])
    target = torch.tensor([[512.0, 256, 768, 1024], [8, 8, 16, 16]])
    sizes = torch.tensor([[800.0, 1333]]).expand(2, 2)
    for function, more in ((mpdiou_loss, (sizes,)), (nwd_loss, ())):
        half = predicted.to(dtype).requires_grad_()
        actual = function(half, target.to(dtype), *more)
        torch.testing.assert_close(actual, function(predicted, target, *more))
        actual.sum().backward()
        assert half.grad.isfinite().all()
