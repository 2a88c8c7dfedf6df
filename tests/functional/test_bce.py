import pytest
import torch
import torch.nn.functional as F

from lit_dense.core.errors import UsageError
from lit_dense.criterion import Criterion
from lit_dense.functional import bce_loss
from lit_dense.functional.bootstrapping import TargetChange
from lit_dense.losses import BCELoss, FocalLoss
from tests.builders.numpy_losses import logit, random_anchors, value_and_gradient
from tests.builders.samples import samples_of


def test_bce_loss__worked_values():
    assert bce_loss(logit(0.9), torch.tensor([0]), alpha=0.75).item() == pytest.approx(0.079020, abs=1e-6)
    assert bce_loss(logit(0.1), torch.tensor([-1]), alpha=0.75).item() == pytest.approx(0.026340, abs=1e-6)


def test_bce_loss__equals_torch():
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, -1, -1])
    one_hot = torch.nn.functional.one_hot(labels + 1, 5)[:, 1:].float()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, one_hot, reduction="none").sum(1)
    torch.testing.assert_close(bce_loss(logits, labels), expected / 2)


def elements(logits, labels):
    """Logits, one-hot targets and the mask of rows with a class."""
    one_hot = torch.nn.functional.one_hot(labels.clamp(min=-1) + 1, logits.shape[1] + 1)[:, 1:].to(logits)
    return one_hot, (labels >= 0).unsqueeze(1)


def test_bce_loss__pos_weight_of_each_class_is_that_of_torch():
    logits, labels, _ = random_anchors(1, anchors=30)
    weights = torch.tensor([0.5, 1.0, 2.0, 7.0]).double()
    one_hot, _ = elements(logits, labels)
    expected = F.binary_cross_entropy_with_logits(logits, one_hot, pos_weight=weights, reduction="none").sum(1)
    torch.testing.assert_close(2 * bce_loss(logits, labels, pos_weight=weights), expected * (labels != -2))


def test_bce_loss__label_smoothing_is_that_of_yolov5_on_rows_with_a_class():
    logits, labels, _ = random_anchors(1, anchors=30)
    one_hot, positive = elements(logits, labels)
    smoothed = torch.where(positive, one_hot * 0.9 + 0.05, 0.0)
    expected = F.binary_cross_entropy_with_logits(logits, smoothed, reduction="none").sum(1)
    actual = bce_loss(logits, labels, change=TargetChange(0.1))
    torch.testing.assert_close(2 * actual, expected * (labels != -2))


@pytest.mark.parametrize(("form", "beta"), [("soft", 0.95), ("hard", 0.8)])
def test_bce_loss__bootstrapping_is_cross_entropy_of_the_mixed_detached_target(form, beta):
    logits, labels, _ = random_anchors(1, anchors=30)
    one_hot, _ = elements(logits, labels)
    z = logits.sigmoid() if form == "soft" else (logits > 0).double()
    mixed = beta * one_hot + (1 - beta) * z

    def expected(x):
        return F.binary_cross_entropy_with_logits(x, mixed, reduction="none").sum(1) * (labels != -2)

    change = TargetChange(0.0, form, beta)
    actual = value_and_gradient(lambda x: 2 * bce_loss(x, labels, change=change), logits)
    torch.testing.assert_close(actual, value_and_gradient(expected, logits))


def test_bce_loss__worked_values_of_bootstrapping():
    logits, labels = torch.tensor([[2.0], [0.0], [-2.0]]).double(), torch.tensor([0, 0, -1])
    _, gradient = value_and_gradient(lambda x: 2 * bce_loss(x, labels, change=TargetChange(0, "soft", 0.95)), logits)
    p = logits.sigmoid()
    torch.testing.assert_close(gradient, p - (0.95 * torch.tensor([[1.0], [1.0], [0.0]]) + 0.05 * p))


def test_bce__arguments():
    loss = BCELoss(pos_weight=[1, 2, 3, 4], label_smoothing=0.1, bootstrap="hard")
    assert loss.change == TargetChange(0.1, "hard", 0.8)
    samples = samples_of((3, 2))
    for part in (loss, loss.pos_weight):
        part.prepare(4)
    expected = bce_loss(samples.logits, samples.labels, 0.5, torch.tensor([1.0, 2, 3, 4]), change=loss.change)
    torch.testing.assert_close(loss(samples.logits, samples.labels, samples), expected)
    assert loss.spec["init_args"]["pos_weight"] == [1, 2, 3, 4]
    for arguments, words in [
        ({"pos_weight": -1}, "pos_weight must be at least 0, not -1"),
        ({"pos_weight": [1, -1]}, r"pos_weight must be numbers of at least 0, not -1.0 \(class 1\)"),
        ({"pos_weight": "2"}, "pos_weight must be a number"),
        ({"label_smoothing": 2}, "label_smoothing must be in"),
        ({"bootstrap": "sft"}, "bootstrap must be one of soft, hard, not 'sft'. Did you mean 'soft'"),
        ({"bootstrap_beta": 0.9}, "bootstrap_beta=0.9 has no effect without bootstrap"),
        ({"bootstrap": "soft", "bootstrap_beta": 2}, "bootstrap_beta must be in"),
    ]:
        with pytest.raises(UsageError, match=words):
            BCELoss(**arguments)
    with pytest.raises(UsageError, match="focal: pos_weight has 3 numbers, but the head has 4 classes"):
        Criterion(FocalLoss(pos_weight=[1, 2, 3])).prepare(4)
