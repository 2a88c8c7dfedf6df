"""Equalization loss v2 (https://arxiv.org/abs/2012.08548)."""

from __future__ import annotations  # torch 2.4 compiles no function that is defined in another with X | None

import torch
import torch.nn.functional as F
from torch import Tensor

from .fused.sigmoid_terms import SigmoidTerms, ValueAndSlope, sum_over_classes


def gradient_ratio(positive: Tensor, negative: Tensor, initial: float) -> Tensor:
    """Positive over negative gradient of each class; before anything was seen, an initial value [C]."""
    return torch.where(negative > 0, positive / (negative + 1e-10), initial)


def equalization_v2_weights(
    ratio: Tensor, gamma: float = 12.0, mu: float = 0.8, alpha: float = 4.0
) -> tuple[Tensor, Tensor]:
    """Weights of the positive and of the negative elements of each class, from the ratio of their gradients [C].

    Example:
        >>> equalization_v2_weights(torch.tensor([0.8, 100.0]))
        (tensor([3., 1.]), tensor([0.5000, 1.0000]))
    """
    negative = torch.sigmoid(gamma * (ratio - mu))
    return 1 + alpha * (1 - negative), negative


def equalization_v2_terms(pos_weights: Tensor, neg_weights: Tensor) -> SigmoidTerms:
    """Cross-entropy with a weight for the yes and the no of each class."""

    def negative(x: Tensor, labels: Tensor) -> ValueAndSlope:
        return neg_weights * F.softplus(x), neg_weights * torch.sigmoid(x)

    def positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> ValueAndSlope:
        weight = pos_weights[labels.clamp(min=0)]
        return weight * F.softplus(-x), -weight * torch.sigmoid(-x)

    return SigmoidTerms(negative, positive)


def equalization_v2_loss(logits: Tensor, labels: Tensor, pos_weights: Tensor, neg_weights: Tensor) -> Tensor:
    """Equalization loss v2 (https://arxiv.org/abs/2012.08548) of each anchor, summed over its classes.

    Args:
        logits: Scores before the sigmoid [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        pos_weights: Weights of positive elements, as :func:`equalization_v2_weights` gives them [C].
        neg_weights: Weights of negative elements [C].

    Returns:
        One value per anchor, 0 where it is ignored [A].
    """
    return sum_over_classes(logits, labels, equalization_v2_terms(pos_weights, neg_weights))
