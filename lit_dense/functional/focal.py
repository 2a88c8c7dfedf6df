"""Focal loss (https://arxiv.org/abs/1708.02002)."""

from __future__ import annotations  # torch 2.4 compiles no function that is defined in another with X | None

import torch
import torch.nn.functional as F
from torch import Tensor

from .fused.sigmoid_terms import SigmoidTerms, ValueAndSlope, sum_over_classes


def focused_cost(x: Tensor, gamma: float, weight: float) -> ValueAndSlope:
    """Focal loss of logits that should be low, ``weight * p ** gamma * -log(1 - p)``, and its derivative.

    Args:
        x: Logits of any shape.
        gamma: How strongly low logits are turned down, at least 0.
        weight: What both are multiplied by.
    """
    p, cost = torch.sigmoid(x), F.softplus(x)
    # below 1 the power of p = 0 has no derivative, that of its logarithm does: log p = x - softplus(x)
    factor = weight * (p**gamma if gamma == 0 or gamma >= 1 else torch.exp(gamma * (x - cost)))
    return factor * cost, factor * torch.addcmul(p, 1 - p, cost, value=gamma)


def focal_terms(alpha: float = 0.25, gamma: float = 2.0) -> SigmoidTerms:
    """The two branches of focal loss; a soft target y mixes them, ``y * positive + (1 - y) * negative``.

    The mixture is the soft focal loss of https://arxiv.org/abs/1912.05086.
    """

    def negative(x: Tensor, labels: Tensor) -> ValueAndSlope:
        return focused_cost(x, gamma, 1 - alpha)

    def positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> ValueAndSlope:
        value, slope = focused_cost(-x, gamma, alpha)
        if targets is None:
            return value, -slope
        as_no, no_slope = focused_cost(x, gamma, 1 - alpha)
        return targets * value + (1 - targets) * as_no, (1 - targets) * no_slope - targets * slope

    return SigmoidTerms(negative, positive)


def focal_loss(
    logits: Tensor, labels: Tensor, alpha: float = 0.25, gamma: float = 2.0, soft_targets: Tensor | None = None
) -> Tensor:
    """Focal loss (https://arxiv.org/abs/1708.02002) of each anchor, summed over its classes.

    Cross-entropy times ``(1 - p_t) ** gamma``: elements that are already right count little. Gradients flow through
    that factor, as in the paper.

    Args:
        logits: Scores before the sigmoid [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        alpha: Weight of positive elements, ``1 - alpha`` of negative ones, in [0, 1].
        gamma: How strongly right elements are turned down, at least 0; 0 gives cross-entropy.
        soft_targets: Target of each anchor's own class in [0, 1], None for 1 [A].

    Returns:
        One value per anchor, 0 where it is ignored [A].

    Example:
        >>> focal_loss(torch.tensor([[0.0, 2.0], [0.0, -2.0]]), torch.tensor([0, -2]))
        tensor([1.2809, 0.0000])
    """
    return sum_over_classes(logits, labels, focal_terms(alpha, gamma), soft_targets)
