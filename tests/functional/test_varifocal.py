"""Varifocal loss beside the formula of RT-DETR and D-FINE, whose factor of negatives is a constant."""

import pytest
import torch
import torch.nn.functional as F

from lit_dense.functional import varifocal_loss
from lit_dense.losses import LOSSES
from tests.builders.numpy_losses import random_anchors, value_and_gradient


def of_rt_detr(logits, labels, ious, alpha, gamma):
    """``RTDetrLoss.loss_labels_vfl`` of transformers, before its sum."""
    target = F.one_hot(labels.clamp(min=-1) + 1, logits.shape[1] + 1)[:, 1:].double()
    score = target * ious.unsqueeze(1)
    weight = alpha * logits.detach().sigmoid().pow(gamma) * (1 - target) + score
    values = F.binary_cross_entropy_with_logits(logits, score, weight=weight, reduction="none")
    return (values * (labels != -2).unsqueeze(1)).sum(1)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.75, 2.0), (0.3, 1.5), (1.0, 0.0)])
def test_varifocal_loss__detached_is_that_of_rt_detr(alpha, gamma):
    logits, labels, ious = random_anchors(4, anchors=40)
    value, slope = value_and_gradient(lambda x: of_rt_detr(x, labels, ious, alpha, gamma), logits)
    own, own_slope = value_and_gradient(lambda x: varifocal_loss(x, labels, alpha, gamma, ious, True), logits)
    torch.testing.assert_close(own, value)
    torch.testing.assert_close(own_slope, slope)
    through, through_slope = value_and_gradient(lambda x: varifocal_loss(x, labels, alpha, gamma, ious), logits)
    torch.testing.assert_close(through, value)
    assert torch.allclose(through_slope, slope) == (gamma == 0)  # without the argument the gradient is mmdetection's


def test_varifocal_loss__the_factor_is_not_detached_by_default_and_the_class_passes_it_on():
    x = torch.ones(1, 1)
    p, cost = x.sigmoid(), F.softplus(x)
    value, slope = LOSSES.build("vfl").sigmoid_terms(None).negative(x, None)
    torch.testing.assert_close(value, 0.75 * p**2 * cost)
    torch.testing.assert_close(slope, 0.75 * p**2 * (p + 2 * (1 - p) * cost))
    detached = LOSSES.build({"class_path": "vfl", "init_args": {"detach_weight": True}})
    value, slope = detached.sigmoid_terms(None).negative(x, None)
    torch.testing.assert_close(value, 0.75 * p**2 * cost)
    torch.testing.assert_close(slope, 0.75 * p**3)
