"""Tests the loss with the kit, which checks all requirements of lit_dense; the values need tests of your own."""

import pytest
import torch
from hinge_loss import HingeLoss

from lit_dense.testing import check_classification_loss


def test_the_kit() -> None:
    check_classification_loss(HingeLoss(margin=0.5))


def test_the_kit_by_name() -> None:
    check_classification_loss("hinge", skip=["two_processes", "compiled"])  # these two take longest


def test_worked_values() -> None:
    negative, positive = HingeLoss(margin=1.0).sigmoid_terms(None)
    x, label = torch.tensor([-2.0, 0.0, 0.5]), torch.zeros(3)
    assert negative(x, label)[0].tolist() == [0.0, 1.0, 2.25]
    assert positive(x, label, None)[0].tolist() == [9.0, 1.0, 0.25]


def test_a_margin_out_of_range() -> None:
    with pytest.raises(ValueError, match="margin must be over 0"):
        HingeLoss(margin=0)
