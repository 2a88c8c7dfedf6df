"""Equalization loss v2, EQL v2 (https://arxiv.org/abs/2012.08548)."""

from __future__ import annotations  # torch 2.4 cannot compile nested functions annotated with X | None

import torch
from torch import Tensor

from .fused.sigmoid_terms import SigmoidTerms, ValueAndSlope, sum_over_classes
from .softplus import softplus


def gradient_ratio(positive: Tensor, negative: Tensor, initial: float) -> Tensor:
    """Return the ratio of positive to negative gradients of each class; ``initial`` without negative gradients [C]."""
    return torch.where(negative > 0, positive / (negative + 1e-10), initial)


def equalization_v2_weights(
    ratio: Tensor, gamma: float = 12.0, mu: float = 0.8, alpha: float = 4.0
) -> tuple[Tensor, Tensor]:
    """Compute the weights of positive and of negative terms of each class from their gradient ratio [C].

    Args:
        ratio: Ratio of positive to negative gradients of each class [C].
        gamma: Steepness of the map from ratio to weight.
        mu: Ratio at which negative terms have weight 0.5.
        alpha: Increase of the weight of positive terms at ratio 0.

    Returns:
        Weights of positive terms [C] and of negative terms [C].

    Example:
        >>> equalization_v2_weights(torch.tensor([0.8, 100.0]))
        (tensor([3., 1.]), tensor([0.5000, 1.0000]))
    """
    negative = torch.sigmoid(gamma * (ratio - mu))
    return 1 + alpha * (1 - negative), negative


def equalization_v2_terms(pos_weights: Tensor, neg_weights: Tensor) -> SigmoidTerms:
    """Return the terms of cross-entropy, weighted for each class."""

    def negative(x: Tensor, labels: Tensor) -> ValueAndSlope:
        return neg_weights * softplus(x), neg_weights * torch.sigmoid(x)

    def positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> ValueAndSlope:
        weight = pos_weights[labels.clamp(min=0)]
        return weight * softplus(-x), -weight * torch.sigmoid(-x)

    return SigmoidTerms(negative, positive)


def equalization_v2_loss(logits: Tensor, labels: Tensor, pos_weights: Tensor, neg_weights: Tensor) -> Tensor:
    """Equalization loss v2 (https://arxiv.org/abs/2012.08548) of each anchor, summed over classes.

    Args:
        logits: Class logits [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        pos_weights: Weights of positive terms, from :func:`equalization_v2_weights` [C].
        neg_weights: Weights of negative terms, from the same function [C].

    Returns:
        One value per anchor, 0 for ignored anchors [A].
    """
    return sum_over_classes(logits, labels, equalization_v2_terms(pos_weights, neg_weights))
