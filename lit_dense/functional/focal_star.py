"""FL*, the shifted logistic variant of focal loss (appendix of https://arxiv.org/abs/1708.02002)."""

from __future__ import annotations  # torch 2.4 compiles no function that is defined in another with X | None

import torch
import torch.nn.functional as F
from torch import Tensor

from .fused.sigmoid_terms import SigmoidTerms, ValueAndSlope, sum_over_classes


def focal_star_terms(gamma: float = 2.0, beta: float = 1.0, alpha: float = 0.5) -> SigmoidTerms:
    """The two branches of FL*, times ``2 * alpha`` and ``2 * (1 - alpha)``."""

    def cost(x: Tensor, weight: float) -> ValueAndSlope:
        """-log sigmoid(-gamma x + beta) / gamma, of a logit that should be low."""
        shifted = gamma * x - beta
        return (weight / gamma) * F.softplus(shifted), weight * torch.sigmoid(shifted)

    def negative(x: Tensor, labels: Tensor) -> ValueAndSlope:
        return cost(x, 2 * (1 - alpha))

    def positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> ValueAndSlope:
        value, slope = cost(-x, 2 * alpha)
        return value, -slope

    return SigmoidTerms(negative, positive)


def focal_star_loss(
    logits: Tensor, labels: Tensor, gamma: float = 2.0, beta: float = 1.0, alpha: float = 0.5
) -> Tensor:
    """FL* (https://arxiv.org/abs/1708.02002) of each anchor, summed over its classes.

    Args:
        logits: Scores before the sigmoid [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        gamma: Steepness, over 0.
        beta: Shift: how sure an element must be before it counts little.
        alpha: Share of positive elements in the weighting; 0.5 is the unweighted loss of the paper's appendix.

    Returns:
        One value per anchor, 0 where it is ignored [A].

    Example:
        >>> focal_star_loss(torch.tensor([[0.0]]), torch.tensor([0]))
        tensor([0.1566])
    """
    return sum_over_classes(logits, labels, focal_star_terms(gamma, beta, alpha))
