import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import sigmoid_focal_loss

from lit_dense.functional import bce_loss, focal_loss
from tests.builders.numpy_losses import random_anchors


def elements(logits, targets, alpha=0.25, gamma=2.0):
    """Focal loss of single elements in numpy."""
    x, t = np.asarray(logits, np.float64), np.asarray(targets)
    p = 1 / (1 + np.exp(-x))
    p_t, alpha_t = np.where(t == 1, p, 1 - p), np.where(t == 1, alpha, 1 - alpha)
    return -alpha_t * (1 - p_t) ** gamma * np.log(p_t)


def test_focal_loss__worked_values():
    logits = torch.tensor([[0.0], [2.0], [-2.0]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, -1, 0])
    values = focal_loss(logits, labels)
    torch.testing.assert_close(values, torch.tensor([0.043322, 1.237559, 0.412520]).double(), rtol=0, atol=1e-6)
    values.sum().backward()
    expected = torch.tensor([[-0.074572], [0.807535], [-0.269178]]).double()
    torch.testing.assert_close(logits.grad, expected, rtol=0, atol=1e-6)


def test_focal_loss__value_at_the_prior():
    prior = torch.full((1, 1), -4.595120, dtype=torch.float64)
    assert focal_loss(prior, torch.tensor([-1])).item() == pytest.approx(7.537752e-7, rel=1e-5)
    assert focal_loss(prior, torch.tensor([0])).item() == pytest.approx(1.128382, rel=1e-5)


@given(
    seed=st.integers(0, 1000),
    alpha=st.floats(0, 1),
    gamma=st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]),
    anchors=st.integers(0, 7),
    classes=st.integers(1, 5),
)
def test_focal_loss__equals_the_formula_and_torchvision(seed, alpha, gamma, anchors, classes):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(anchors, classes, generator=generator, dtype=torch.float64) * 3
    labels = torch.randint(-2, classes, (anchors,), generator=generator)
    one_hot = torch.nn.functional.one_hot(labels.clamp(min=-1) + 1, classes + 1)[:, 1:].double()
    values = focal_loss(logits, labels, alpha, gamma)
    expected = elements(logits, one_hot, alpha, gamma).sum(1) * (labels != -2).numpy()
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-9, atol=1e-12)
    theirs = sigmoid_focal_loss(logits, one_hot, alpha, gamma).sum(1) * (labels != -2)
    torch.testing.assert_close(values, theirs, rtol=1e-6, atol=1e-9)


def test_focal_loss__gradient():
    logits = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 2, -1, -2, 1])
    torch.autograd.gradcheck(lambda x: focal_loss(x, labels, 0.3, 1.5), logits)
    torch.autograd.gradcheck(lambda x: bce_loss(x, labels, 0.3), logits)


def test_focal_loss__without_its_factor_is_cross_entropy():
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, -1, -1, -2])
    torch.testing.assert_close(focal_loss(logits, labels, 0.7, 0.0), bce_loss(logits, labels, 0.7))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_focal_loss__half_precision_and_large_logits(dtype):
    logits = torch.tensor([[50.0, -50.0], [-50.0, 50.0]], dtype=dtype, requires_grad=True)
    for loss in (focal_loss, bce_loss):
        values = loss(logits, torch.tensor([0, 0]))
        assert values.dtype == torch.float32
        assert values[0].item() == pytest.approx(0, abs=1e-6)
        assert values[1] > 12
        (gradient,) = torch.autograd.grad(values.sum(), logits)
        assert gradient.isfinite().all()


def test_focal_loss__pos_weight_is_that_of_yolov5():
    """YOLOv5's FocalLoss: BCEWithLogitsLoss(pos_weight=w) times its factor."""
    logits, labels, _ = random_anchors(1, anchors=30)
    weights = torch.tensor([0.5, 1.0, 2.0, 7.0]).double()
    one_hot = torch.nn.functional.one_hot(labels.clamp(min=-1) + 1, 5)[:, 1:].double()
    cost = torch.nn.functional.binary_cross_entropy_with_logits(logits, one_hot, pos_weight=weights, reduction="none")
    p = logits.sigmoid()
    p_t, alpha_t = one_hot * p + (1 - one_hot) * (1 - p), one_hot * 0.25 + (1 - one_hot) * 0.75
    expected = (cost * alpha_t * (1 - p_t) ** 1.5).sum(1) * (labels != -2)
    torch.testing.assert_close(focal_loss(logits, labels, gamma=1.5, pos_weight=weights), expected)
    one = focal_loss(logits, labels, pos_weight=torch.full((4,), 3.0))
    torch.testing.assert_close(focal_loss(logits, labels, pos_weight=3.0), one)
