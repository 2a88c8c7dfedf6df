"""Equalization loss, EQL (https://arxiv.org/abs/2003.05176)."""

from __future__ import annotations  # torch 2.4 cannot compile nested functions annotated with X | None

import torch
from torch import Tensor

from .fused.sigmoid_terms import SigmoidTerms, ValueAndSlope, sum_over_classes
from .softplus import softplus


def equalization_terms(rare: Tensor) -> SigmoidTerms:
    """Return the terms of equalization loss: objects of other classes are not used as negatives of rare classes."""

    def negative(x: Tensor, labels: Tensor) -> ValueAndSlope:
        weight = torch.where((labels >= 0).unsqueeze(1) & rare, 0.0, 1.0).to(x.dtype)
        return weight * softplus(x), weight * torch.sigmoid(x)

    def positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> ValueAndSlope:
        return softplus(-x), -torch.sigmoid(-x)

    return SigmoidTerms(negative, positive)


def equalization_loss(logits: Tensor, labels: Tensor, rare: Tensor) -> Tensor:
    """Equalization loss (https://arxiv.org/abs/2003.05176) of each anchor, summed over classes.

    Args:
        logits: Class logits [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        rare: Mask of rare classes, bool [C].

    Returns:
        One value per anchor, 0 for ignored anchors [A].

    Example:
        >>> equalization_loss(torch.zeros(2, 2), torch.tensor([0, -1]), torch.tensor([False, True]))
        tensor([0.6931, 1.3863])
    """
    return sum_over_classes(logits, labels, equalization_terms(rare))
