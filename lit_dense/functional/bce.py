"""Weighted binary cross-entropy (section 3.1 of https://arxiv.org/abs/1708.02002)."""

from __future__ import annotations  # torch 2.4 cannot compile nested functions annotated with X | None

import torch
from torch import Tensor

from .fused.sigmoid_terms import SigmoidTerms, ValueAndSlope, sum_over_classes
from .softplus import softplus


def bce_terms(alpha: float = 0.5, pos_weight: float = 1.0) -> SigmoidTerms:
    """Return the terms of cross-entropy; a soft target y gives ``y * positive + (1 - y) * negative``."""
    pos_factor, neg_factor = alpha * pos_weight, 1 - alpha

    def negative(x: Tensor, labels: Tensor) -> ValueAndSlope:
        return neg_factor * softplus(x), neg_factor * torch.sigmoid(x)

    def positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> ValueAndSlope:
        value, slope = pos_factor * softplus(-x), -pos_factor * torch.sigmoid(-x)
        if targets is None:
            return value, slope
        neg_value, neg_slope = negative(x, labels)
        return targets * value + (1 - targets) * neg_value, targets * slope + (1 - targets) * neg_slope

    return SigmoidTerms(negative, positive)


def bce_loss(
    logits: Tensor,
    labels: Tensor,
    alpha: float = 0.5,
    pos_weight: float = 1.0,
    soft_targets: Tensor | None = None,
) -> Tensor:
    """Alpha-balanced cross-entropy (https://arxiv.org/abs/1708.02002) of each anchor, summed over classes.

    Args:
        logits: Class logits [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        alpha: Weight of positive terms, in [0, 1]; negative terms have weight ``1 - alpha``.
        pos_weight: Additional factor of positive terms, at least 0.
        soft_targets: Target of the logit of each anchor's class, in [0, 1]; None means 1 [A].

    Returns:
        One value per anchor, 0 for ignored anchors [A].

    Example:
        >>> bce_loss(torch.tensor([[0.0, 0.0], [4.0, -4.0]]), torch.tensor([1, -1]))
        tensor([0.6931, 2.0181])
    """
    return sum_over_classes(logits, labels, bce_terms(alpha, pos_weight), soft_targets)
