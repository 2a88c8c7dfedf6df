"""Varifocal loss (https://arxiv.org/abs/2008.13367)."""

from __future__ import annotations  # torch 2.4 compiles no function that is defined in another with X | None

import torch
import torch.nn.functional as F
from torch import Tensor

from .focal import focused_cost
from .fused.sigmoid_terms import SigmoidTerms, ValueAndSlope, sum_over_classes


def varifocal_terms(alpha: float = 0.75, gamma: float = 2.0, detach_weight: bool = False) -> SigmoidTerms:
    """The two branches of varifocal loss: positives weighed by their target, negatives turned down where right."""

    def negative(x: Tensor, labels: Tensor) -> ValueAndSlope:
        if not detach_weight:
            return focused_cost(x, gamma, alpha)
        p = torch.sigmoid(x)
        weight = alpha * p.detach() ** gamma
        return weight * F.softplus(x), weight * p

    def positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> ValueAndSlope:
        # a positive whose box misses its object altogether would cost nothing, as if it were neither yes nor no
        y = torch.ones_like(x) if targets is None else targets.clamp(min=1e-6)
        return y * (y * F.softplus(-x) + (1 - y) * F.softplus(x)), y * (torch.sigmoid(x) - y)

    return SigmoidTerms(negative, positive)


def varifocal_loss(
    logits: Tensor,
    labels: Tensor,
    alpha: float = 0.75,
    gamma: float = 2.0,
    soft_targets: Tensor | None = None,
    detach_weight: bool = False,
) -> Tensor:
    """Varifocal loss (https://arxiv.org/abs/2008.13367) of each anchor, summed over its classes.

    Args:
        logits: Scores before the sigmoid [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        alpha: Weight of negative elements, at least 0.
        gamma: How strongly negative elements that are right are turned down, at least 0.
        soft_targets: Target of each anchor's own class in [0, 1], such as the IoU of its predicted box [A].
        detach_weight: Whether no gradient flows through ``alpha * p ** gamma``, as in RT-DETR and D-FINE.

    Returns:
        One value per anchor, 0 where it is ignored [A].

    Example:
        >>> varifocal_loss(torch.tensor([[0.4055]]), torch.tensor([0]), soft_targets=torch.tensor([0.8]))
        tensor([0.4735])
    """
    return sum_over_classes(logits, labels, varifocal_terms(alpha, gamma, detach_weight), soft_targets)
