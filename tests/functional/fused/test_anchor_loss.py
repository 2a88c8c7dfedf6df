"""The mechanism: chunks, precision, and the plain path, whatever the formula."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from lit_dense.functional import bce_loss, focal_loss, per_anchor, plain_path, quality_focal_loss, softmax_loss
from lit_dense.functional.asymmetric import asymmetric_terms
from lit_dense.functional.bce import bce_terms
from lit_dense.functional.bootstrapping import TargetChange
from lit_dense.functional.ecm import ecm_terms
from lit_dense.functional.equalization import equalization_terms
from lit_dense.functional.equalization_v2 import equalization_v2_terms
from lit_dense.functional.equalized_focal import equalized_focal_terms
from lit_dense.functional.focal import focal_terms
from lit_dense.functional.focal_star import focal_star_terms
from lit_dense.functional.fused.anchor_loss import Rows, slopes_in_backward
from lit_dense.functional.fused.sigmoid_terms import sum_over_classes, sum_over_classes_and_gradients
from lit_dense.functional.gce import gce_terms
from lit_dense.functional.gradient_harmonized import harmonized_terms
from lit_dense.functional.ia_bce import ia_bce_terms
from lit_dense.functional.mal import mal_terms
from lit_dense.functional.poly_focal import poly_focal_terms
from lit_dense.functional.quality_focal import quality_focal_terms
from lit_dense.functional.varifocal import varifocal_terms
from tests.builders.numpy_losses import random_anchors

CLASSES = 4
WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 0.0])
ELEMENTS = {
    "asl": asymmetric_terms(),
    "asl without margin": asymmetric_terms(0.0, 1.0, 0.0),
    "asl detached": asymmetric_terms(detach_weight=True),
    "bce, a weight for each class": bce_terms(0.4, WEIGHTS + 0.5),
    "bce smoothed": bce_terms(0.4, 2.0, TargetChange(0.1)),
    "bce soft detached": bce_terms(0.4, WEIGHTS + 0.5, TargetChange(0.1, "soft", 0.95)),
    "bce hard": bce_terms(change=TargetChange(0.0, "hard", 0.8)),
    "ecm": ecm_terms(-WEIGHTS, WEIGHTS + 0.5),
    "eql": equalization_terms(torch.tensor([False, True, False, True])),
    "eql_v2": equalization_v2_terms(WEIGHTS + 1, WEIGHTS),
    "efl": equalized_focal_terms(WEIGHTS.clamp(max=1)),
    "focal": focal_terms(),
    "focal, gamma 0.5": focal_terms(gamma=0.5),
    "focal, a weight for each class": focal_terms(pos_weight=WEIGHTS),
    "focal_star": focal_star_terms(2.0, 1.0, 0.3),
    "gce": gce_terms(),
    "gce, q 0": gce_terms(0.0),
    "ghm": harmonized_terms(torch.rand(5, generator=torch.Generator().manual_seed(0)).double()),
    "ia_bce": ia_bce_terms(),
    "ia_bce, gamma 0.5": ia_bce_terms(0.5),
    "mal detached": mal_terms(),
    "poly_focal": poly_focal_terms(),
    "poly_focal, unbalanced": poly_focal_terms(epsilon=1.0, balanced=False),
    "qfl": quality_focal_terms(),
    "vfl": varifocal_terms(),
    "vfl detached": varifocal_terms(gamma=1.5, detach_weight=True),
}


def value_and_gradient(function, logits):
    logits = logits.detach().requires_grad_()
    values = function(logits)
    weights = torch.linspace(0.5, 2, len(values), dtype=values.dtype)
    (gradient,) = torch.autograd.grad((values * weights).sum(), logits)
    return values, gradient


@pytest.mark.parametrize("name", ELEMENTS)
@given(seed=st.integers(0, 100), soft=st.booleans(), weighted=st.booleans())
def test_anchor_loss__closed_form_derivatives_are_those_of_autograd(name, soft, weighted, seed):
    logits, labels, targets = random_anchors(seed, classes=CLASSES)

    def loss(x):
        return sum_over_classes(x, labels, ELEMENTS[name], targets if soft else None, WEIGHTS if weighted else None)

    values, gradient = value_and_gradient(loss, logits)
    with plain_path():
        plain, plain_gradient = value_and_gradient(loss, logits)
    torch.testing.assert_close(values, plain)
    torch.testing.assert_close(gradient, plain_gradient)


@pytest.mark.parametrize("name", [name for name in ELEMENTS if name != "ghm" and "detached" not in name])
def test_anchor_loss__gradcheck(name):
    logits, labels, targets = random_anchors(3, classes=CLASSES)
    logits = logits.clamp(-4, 4).requires_grad_()  # away from the corners of p = margin
    torch.autograd.gradcheck(lambda x: sum_over_classes(x, labels, ELEMENTS[name], targets), logits)


@pytest.mark.parametrize("name", ELEMENTS)
@pytest.mark.parametrize("extreme", [50.0, 1e4, 1e38, float("inf")])
def test_anchor_loss__extreme_logits_are_finite(name, extreme):
    logits = torch.tensor([[extreme, -extreme, extreme, -extreme]] * 3)
    targets = torch.tensor([0.3, 0.0, 1.0])
    for soft in (None, targets):
        values, gradient = value_and_gradient(
            lambda x, soft=soft: sum_over_classes(x, torch.tensor([0, 1, -1]), ELEMENTS[name], soft), logits
        )
        assert values.isfinite().all()
        assert gradient.isfinite().all()
        assert (values >= 0).all() or "poly_focal" in name


def test_anchor_loss__nan_is_not_hidden():
    logits = torch.tensor([[float("nan"), 0.0], [0.0, 0.0]], requires_grad=True)
    for name in ("focal", "ghm", "qfl"):
        values = sum_over_classes(logits, torch.tensor([-1, 0]), ELEMENTS[name])
        assert values.isnan().tolist() == [True, False]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ELEMENTS)
def test_anchor_loss__half_precision_is_read_as_it_is_and_computed_in_float32(name, dtype):
    logits, labels, _ = random_anchors(5, anchors=40, classes=CLASSES)
    half = logits.to(dtype)

    def loss(x):
        return sum_over_classes(x, labels, ELEMENTS[name])

    values, gradient = value_and_gradient(loss, half)
    wide, wide_gradient = value_and_gradient(loss, half.float())
    assert (values.dtype, gradient.dtype) == (torch.float32, dtype)
    torch.testing.assert_close(values, wide)
    torch.testing.assert_close(gradient, wide_gradient.to(dtype))


def test_anchor_loss__small_weights_do_not_underflow_in_half_precision():
    logits = torch.zeros(2, 1, dtype=torch.float16, requires_grad=True)
    tiny = bce_loss(logits, torch.tensor([0, -1])).sum() * 1e-8
    (gradient,) = torch.autograd.grad(tiny * 2.0**20, logits)  # the scale of a GradScaler
    torch.testing.assert_close(gradient.flatten().float(), torch.tensor([-1, 1]) * 0.25e-8 * 2**20, rtol=1e-2, atol=0)


@pytest.mark.parametrize("anchors", [0, 1, 65, 200])
def test_anchor_loss__chunks_do_not_change_numbers(anchors, monkeypatch):
    logits, labels, targets = random_anchors(1, anchors=anchors, classes=CLASSES)

    def both():
        return [
            value_and_gradient(lambda x: quality_focal_loss(x, labels, soft_targets=targets), logits),
            value_and_gradient(lambda x: softmax_loss(x, labels.clamp(max=2)), logits),
        ]

    whole = both()
    monkeypatch.setattr(
        "lit_dense.functional.fused.anchor_loss.chunks",
        lambda logits, start: (slice(first, first + 64) for first in range(start, max(1, len(logits)), 64)),
    )
    torch.testing.assert_close(both(), whole)


def test_anchor_loss__gradients_can_be_asked_for_twice():
    logits, labels, _ = random_anchors(2)
    logits.requires_grad_()
    loss = focal_loss(logits, labels).sum()
    (first,) = torch.autograd.grad(loss, logits, retain_graph=True)
    first = first.clone()
    (second,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(second, first)


def test_anchor_loss__ignored_anchors_have_neither_value_nor_gradient():
    logits, labels = torch.full((2, 3), 20.0), torch.tensor([-2, -1])
    values, gradient = value_and_gradient(lambda x: focal_loss(x, labels), logits)
    assert values[0] == 0
    assert (gradient[0] == 0).all()
    assert (gradient[1] != 0).all()


@given(seed=st.integers(0, 100))
def test_sum_over_classes_and_gradients__are_those_of_the_gradient(seed):
    logits, labels, _ = random_anchors(seed, anchors=30)
    elements = focal_terms()
    logits.requires_grad_()
    values, sums = sum_over_classes_and_gradients(logits, labels, elements)
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    own = torch.nn.functional.one_hot(labels.clamp(min=-1) + 1, 5)[:, 1:].bool()
    torch.testing.assert_close(sums.positive, gradient.abs().where(own, 0).sum(0))
    torch.testing.assert_close(sums.negative, gradient.abs().where(~own, 0).sum(0))
    with plain_path():
        torch.testing.assert_close(sum_over_classes_and_gradients(logits, labels, elements)[1], sums)


def test_per_anchor__a_formula_of_rows():
    def rows(x, labels, targets):
        return Rows(x.square().sum(1), 2 * x, torch.tensor(float(len(x))))

    logits = torch.randn(6, 2)
    values, gradient = value_and_gradient(lambda x: per_anchor(x, torch.full((6,), -1), rows)[0], logits)
    torch.testing.assert_close(values, logits.square().sum(1))
    torch.testing.assert_close(gradient, 2 * logits * torch.linspace(0.5, 2, 6)[:, None])
    assert per_anchor(logits, torch.full((6,), -1), rows)[1] == 6


def test_per_anchor__does_not_change_a_tensor_of_the_formula():
    def rows(x, labels, targets):
        return Rows(x.squeeze(1) * targets, targets.unsqueeze(1))

    factors = torch.tensor([1.0, 2.0, 3.0])
    _, gradient = value_and_gradient(
        lambda x: per_anchor(x, torch.zeros(3, dtype=torch.long), rows, factors)[0], torch.zeros(3, 1)
    )
    torch.testing.assert_close(gradient.squeeze(1), torch.tensor([0.5, 2.5, 6.0]))
    assert factors.tolist() == [1, 2, 3]


def test_per_anchor__computes_slopes_only_for_a_gradient():
    called = []

    def rows(x, labels, targets):
        return Rows(x.square().sum(1), lambda: called.append(len(x)) or 2 * x)

    logits, labels = torch.ones(4, 2), torch.full((4,), -1)
    per_anchor(logits, labels, rows)
    assert not called
    _, gradient = value_and_gradient(lambda x: per_anchor(x, labels, rows)[0], logits)
    assert called == [4]
    torch.testing.assert_close(gradient[:, 0], 2 * torch.linspace(0.5, 2, 4))


@pytest.mark.parametrize("kept", [[], [3], [3, 40, 5], range(50)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("loss", [focal_loss, quality_focal_loss, softmax_loss])
def test_slopes_in_backward__have_the_same_gradient(loss, dtype, kept):
    logits, labels, _ = random_anchors(4, anchors=50, classes=CLASSES)
    logits, labels = logits.to(dtype), labels.clamp(max=CLASSES - 2)
    weights = torch.zeros(50).index_fill(0, torch.tensor(list(kept), dtype=torch.long), 1.5)

    def gradient(late):
        x = logits.detach().requires_grad_()
        with slopes_in_backward(late):
            total = (loss(x, labels) * weights).sum()
        return torch.autograd.grad(total, x)[0]

    torch.testing.assert_close(gradient(True), gradient(False))


@pytest.mark.parametrize("rows", [16, 1000])
def test_sum_over_classes__of_known_positives(rows, monkeypatch):
    logits, labels, targets = random_anchors(1, anchors=100, classes=CLASSES)
    monkeypatch.setattr(
        "lit_dense.functional.fused.anchor_loss.chunks",
        lambda logits, start=0: (slice(first, first + rows) for first in range(start, len(logits), rows)),
    )
    positives = (labels >= 0).nonzero().squeeze(1)

    def loss(x, known):
        return sum_over_classes(x, labels, quality_focal_terms(), targets, positives=known)

    expected = value_and_gradient(lambda x: loss(x, None), logits)
    torch.testing.assert_close(value_and_gradient(lambda x: loss(x, positives), logits), expected)


class Operations(TorchDispatchMode):
    """Counts the operations that are dispatched."""

    def __init__(self):
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += 1
        return func(*args, **(kwargs or {}))


def test_focal_loss__dispatches_few_operations():
    logits, labels, _ = random_anchors(0, anchors=200, classes=CLASSES)
    positives = (labels >= 0).nonzero().squeeze(1)
    with Operations() as seen:
        value_and_gradient(lambda x: sum_over_classes(x, labels, focal_terms(), positives=positives), logits)
    assert seen.number <= 48
