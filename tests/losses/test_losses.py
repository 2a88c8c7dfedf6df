"""What every classification loss keeps, by name: a new loss is tested here without a word."""

import pytest
import torch

from lit_dense.errors import UsageError
from lit_dense.losses import LOSSES, BCELoss, FocalLoss
from tests.test_criterion import samples_of


@pytest.mark.parametrize("name", sorted(LOSSES.points))
def test_one_value_per_anchor_whatever_the_order_of_anchors(name):
    samples = samples_of((2, 0, 5))
    loss = LOSSES.build(name)
    values = loss(samples.logits, samples.labels, samples)
    assert values.shape == samples.labels.shape
    assert values.isfinite().all()
    assert (values >= 0).all()
    order = torch.randperm(len(values))
    shuffled = loss(samples.logits[order], samples.labels[order], samples)
    torch.testing.assert_close(shuffled, values[order])


@pytest.mark.parametrize("name", sorted(LOSSES.points))
def test_a_right_answer_costs_less_than_a_wrong_one(name):
    samples = samples_of((3,))
    wrong = torch.full_like(samples.logits, 2.0)
    right = torch.full_like(samples.logits, -4.0)
    wrong[samples.positives, samples.pos_labels] = -4.0
    right[samples.positives, samples.pos_labels] = 2.0
    loss = LOSSES.build(name)
    assert (loss(right, samples.labels, samples) <= loss(wrong, samples.labels, samples)).all()


def test_arguments_out_of_range_are_named():
    with pytest.raises(UsageError, match=r"focal: gamma must be at least 0, not -1"):
        FocalLoss(gamma=-1)
    with pytest.raises(UsageError, match=r"bce: alpha must be in \[0, 1\], not nan"):
        BCELoss(alpha=float("nan"))
