"""Label smoothing and bootstrapping of softmax cross-entropy."""

import pytest
import torch
import torch.nn.functional as F

from lit_dense.functional import softmax_loss
from lit_dense.functional.bootstrapping import TargetChange
from lit_dense.losses import SoftmaxLoss
from tests.builders.numpy_losses import random_anchors, value_and_gradient


def anchors():
    logits, labels, _ = random_anchors(1, anchors=40, classes=4)
    return logits, labels.clamp(max=2)  # the last column is background


def column(labels):
    return torch.where(labels >= 0, labels, 3)


def test_softmax_loss__label_smoothing_is_that_of_torch():
    logits, labels = anchors()

    def theirs(x):
        return F.cross_entropy(x, column(labels), reduction="none", label_smoothing=0.1) * (labels != -2)

    actual = value_and_gradient(lambda x: softmax_loss(x, labels, change=TargetChange(0.1)), logits)
    torch.testing.assert_close(actual, value_and_gradient(theirs, logits))


@pytest.mark.parametrize("form", ["soft", "hard"])
def test_softmax_loss__bootstrapping_is_cross_entropy_of_the_mixed_detached_target(form):
    logits, labels = anchors()
    p = logits.softmax(1)
    z = p if form == "soft" else F.one_hot(logits.argmax(1), 4)
    mixed = 0.9 * F.one_hot(column(labels), 4) + 0.1 * z

    def theirs(x):
        weight = torch.where(labels == -1, 0.5, 1.0) * (labels != -2)
        return F.cross_entropy(x, mixed, reduction="none") * weight

    change = TargetChange(0.0, form, 0.9)
    actual = value_and_gradient(lambda x: softmax_loss(x, labels, 0.5, change), logits)
    torch.testing.assert_close(actual, value_and_gradient(theirs, logits))


def test_softmax_loss__extreme_logits_are_finite_with_changed_targets():
    for form in (None, "soft", "hard"):
        for extreme in (1e4, float("inf")):
            logits = torch.tensor([[extreme, -extreme, 0.0, extreme]] * 2, requires_grad=True)
            values = softmax_loss(logits, torch.tensor([1, -1]), change=TargetChange(0.1, form, 0.8))
            (gradient,) = torch.autograd.grad(values.sum(), logits)
            assert values.isfinite().all()
            assert gradient.isfinite().all()


def test_softmax__arguments():
    assert SoftmaxLoss(label_smoothing=0.1, bootstrap="soft").change == TargetChange(0.1, "soft", 0.95)
