import pytest
import torch

from lit_dense.functional import bce_loss
from tests.builders.numpy_losses import logit


def test_bce_loss__worked_values():
    assert bce_loss(logit(0.9), torch.tensor([0]), alpha=0.75).item() == pytest.approx(0.079020, abs=1e-6)
    assert bce_loss(logit(0.1), torch.tensor([-1]), alpha=0.75).item() == pytest.approx(0.026340, abs=1e-6)


def test_bce_loss__equals_torch():
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, -1, -1])
    one_hot = torch.nn.functional.one_hot(labels + 1, 5)[:, 1:].float()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, one_hot, reduction="none").sum(1)
    torch.testing.assert_close(bce_loss(logits, labels), expected / 2)
