"""Matchability-aware loss, MAL (https://arxiv.org/abs/2412.04234)."""

from __future__ import annotations  # torch 2.4 cannot compile nested functions annotated with X | None

import torch
from torch import Tensor

from .fused.sigmoid_terms import SigmoidTerms, ValueAndSlope, sum_over_classes
from .softplus import power, softplus


def mal_terms(gamma: float = 1.5) -> SigmoidTerms:
    """Return the terms of MAL: positives with the target ``iou ** gamma``, negatives with a detached focal factor."""

    def negative(x: Tensor, labels: Tensor) -> ValueAndSlope:
        p = torch.sigmoid(x)
        weight = power(p.detach(), gamma)
        return weight * softplus(x), weight * p

    def positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> ValueAndSlope:
        y = torch.ones_like(x) if targets is None else targets**gamma
        return y * softplus(-x) + (1 - y) * softplus(x), torch.sigmoid(x) - y

    return SigmoidTerms(negative, positive)


def mal_loss(logits: Tensor, labels: Tensor, gamma: float = 1.5, soft_targets: Tensor | None = None) -> Tensor:
    """Matchability-aware loss (https://arxiv.org/abs/2412.04234) of each anchor, summed over classes.

    Args:
        logits: Class logits [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        gamma: Exponent of the targets of positives, and focusing exponent of negatives, at least 0.
        soft_targets: IoU of each anchor's predicted box, in [0, 1]; None means 1 [A].

    Returns:
        One value per anchor, 0 for ignored anchors [A].

    Example:
        >>> mal_loss(torch.tensor([[0.5, -1.0, -3.0]]), torch.tensor([0]), soft_targets=torch.tensor([0.8]))
        tensor([0.6605])
    """
    return sum_over_classes(logits, labels, mal_terms(gamma), soft_targets)
