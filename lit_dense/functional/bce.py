"""Weighted binary cross-entropy (section 3.1 of https://arxiv.org/abs/1708.02002)."""

from __future__ import annotations  # torch 2.4 compiles no function that is defined in another with X | None

import torch
import torch.nn.functional as F
from torch import Tensor

from .fused.sigmoid_terms import SigmoidTerms, ValueAndSlope, sum_over_classes


def bce_terms(alpha: float = 0.5, pos_weight: float = 1.0) -> SigmoidTerms:
    """The two branches of cross-entropy; a soft target y mixes them, ``y * positive + (1 - y) * negative``."""
    yes, no = alpha * pos_weight, 1 - alpha

    def negative(x: Tensor, labels: Tensor) -> ValueAndSlope:
        return no * F.softplus(x), no * torch.sigmoid(x)

    def positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> ValueAndSlope:
        value, slope = yes * F.softplus(-x), -yes * torch.sigmoid(-x)
        if targets is None:
            return value, slope
        as_no, no_slope = negative(x, labels)
        return targets * value + (1 - targets) * as_no, targets * slope + (1 - targets) * no_slope

    return SigmoidTerms(negative, positive)


def bce_loss(
    logits: Tensor,
    labels: Tensor,
    alpha: float = 0.5,
    pos_weight: float = 1.0,
    soft_targets: Tensor | None = None,
) -> Tensor:
    """Alpha-balanced cross-entropy (https://arxiv.org/abs/1708.02002) of each anchor, summed over its classes.

    Args:
        logits: Scores before the sigmoid [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        alpha: Weight of positive elements, ``1 - alpha`` of negative ones, in [0, 1].
        pos_weight: What positive elements are multiplied by besides, at least 0.
        soft_targets: Target of each anchor's own class in [0, 1], None for 1 [A].

    Returns:
        One value per anchor, 0 where it is ignored [A].

    Example:
        >>> bce_loss(torch.tensor([[0.0, 0.0], [4.0, -4.0]]), torch.tensor([1, -1]))
        tensor([0.6931, 2.0181])
    """
    return sum_over_classes(logits, labels, bce_terms(alpha, pos_weight), soft_targets)
