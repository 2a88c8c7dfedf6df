"""Varifocal loss, VFL (https://arxiv.org/abs/2008.13367)."""

from __future__ import annotations  # torch 2.4 cannot compile nested functions annotated with X | None

import torch
from torch import Tensor

from .focal import focused_cost
from .fused.sigmoid_terms import SigmoidTerms, ValueAndSlope, sum_over_classes
from .softplus import power, softplus


def varifocal_terms(alpha: float = 0.75, gamma: float = 2.0, detach_weight: bool = False) -> SigmoidTerms:
    """Return the terms of varifocal loss: positives weighted by their target, negatives by a focal factor."""

    def negative(x: Tensor, labels: Tensor) -> ValueAndSlope:
        if not detach_weight:
            return focused_cost(x, gamma, alpha)
        p = torch.sigmoid(x)
        weight = alpha * power(p.detach(), gamma)
        return weight * softplus(x), weight * p

    def positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> ValueAndSlope:
        # With target 0 the loss of a positive would be 0, as if the logit were ignored.
        y = torch.ones_like(x) if targets is None else targets.clamp(min=1e-6)
        return y * (y * softplus(-x) + (1 - y) * softplus(x)), y * (torch.sigmoid(x) - y)

    return SigmoidTerms(negative, positive)


def varifocal_loss(
    logits: Tensor,
    labels: Tensor,
    alpha: float = 0.75,
    gamma: float = 2.0,
    soft_targets: Tensor | None = None,
    detach_weight: bool = False,
) -> Tensor:
    """Varifocal loss (https://arxiv.org/abs/2008.13367) of each anchor, summed over classes.

    Args:
        logits: Class logits [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        alpha: Weight of negative terms, at least 0.
        gamma: Focusing exponent of negative terms, at least 0.
        soft_targets: Target of the logit of each anchor's class, in [0, 1], such as the IoU of its predicted box [A].
        detach_weight: Whether to detach the factor ``alpha * p ** gamma``, as RT-DETR and D-FINE do.

    Returns:
        One value per anchor, 0 for ignored anchors [A].

    Example:
        >>> varifocal_loss(torch.tensor([[0.4055]]), torch.tensor([0]), soft_targets=torch.tensor([0.8]))
        tensor([0.4735])
    """
    return sum_over_classes(logits, labels, varifocal_terms(alpha, gamma, detach_weight), soft_targets)
