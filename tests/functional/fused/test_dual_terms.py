"""Losses with dual weights of some logits."""

import torch

from lit_dense.functional.focal import focal_terms
from lit_dense.functional.fused.dual_terms import sum_with_dual_weights
from lit_dense.functional.unknown_classes import hide_unknown, unknown_negatives

ANCHORS, COLUMNS = torch.tensor([0, 2, 0]), torch.tensor([1, 0, 2])
POSITIVE, NEGATIVE = torch.tensor([0.5, 2.0, 3.0]), torch.tensor([0.25, 0.0, -0.5])
LABELS = torch.tensor([1, -1, 0])


def test_sum_with_dual_weights__a_pair_of_an_unknown_class_has_no_term():
    torch.manual_seed(0)
    logits = torch.randn(3, 3, requires_grad=True)
    unknown = torch.tensor([[False, False, True]])  # the class of the last pair
    mask = unknown_negatives(LABELS, unknown, torch.zeros(3, dtype=torch.int64))

    def loss(pairs):
        parts = ANCHORS[:pairs], COLUMNS[:pairs], POSITIVE[:pairs], NEGATIVE[:pairs]
        hidden = hide_unknown(logits, mask)
        values = sum_with_dual_weights(hidden, LABELS, focal_terms(), *parts, has_unknown=True)
        return values, torch.autograd.grad(values.sum(), logits)[0]

    values, gradient = loss(3)
    expected, expected_gradient = loss(2)
    torch.testing.assert_close(values, expected, rtol=0, atol=0)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=0)
    assert not gradient[:, 2].any()
    assert gradient[0, 1].abs() > 0
