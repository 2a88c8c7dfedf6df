import torch

from lit_dense.functional import bce_loss, gce_loss
from tests.builders.numpy_losses import random_anchors, value_and_gradient

LOGITS = torch.tensor([[2.0], [0.0], [-2.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 0, -1])


def close(actual, expected):
    torch.testing.assert_close(actual, torch.tensor(expected).double(), rtol=0, atol=1e-6)


def test_gce_loss__worked_values():
    values, gradient = value_and_gradient(lambda x: gce_loss(x, LABELS), LOGITS)
    close(values, [0.121453, 0.549183, 0.121453])
    p_t = torch.tensor([2.0, 0.0, 2.0]).double().sigmoid()
    torch.testing.assert_close(gradient[:, 0], p_t**0.7 * (LOGITS[:, 0].sigmoid() - torch.tensor([1, 1, 0])))


def test_gce_loss__is_between_cross_entropy_and_the_absolute_error():
    logits, labels, _ = random_anchors(2, anchors=50)
    torch.testing.assert_close(gce_loss(logits, labels, 0.0), 2 * bce_loss(logits, labels))
    torch.testing.assert_close(gce_loss(logits, labels, 1e-9), 2 * bce_loss(logits, labels), rtol=1e-6, atol=0)
    p_t = torch.tensor([2.0, 0.0, 2.0]).double().sigmoid()
    torch.testing.assert_close(gce_loss(LOGITS, LABELS, 1.0), 1 - p_t)


def test_gce_loss__small_values_are_exact_in_float32():
    logits = torch.full((1, 1), -30.0)
    torch.testing.assert_close(gce_loss(logits, torch.tensor([-1])), logits.exp()[:, 0], rtol=1e-5, atol=0)
