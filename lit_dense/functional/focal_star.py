"""FL*, a variant of focal loss with a scaled and shifted logit (appendix of https://arxiv.org/abs/1708.02002)."""

from __future__ import annotations  # torch 2.4 cannot compile nested functions annotated with X | None

import torch
from torch import Tensor

from .fused.sigmoid_terms import SigmoidTerms, ValueAndSlope, sum_over_classes
from .softplus import softplus


def focal_star_terms(gamma: float = 2.0, beta: float = 1.0, alpha: float = 0.5) -> SigmoidTerms:
    """Return the terms of FL*, times ``2 * alpha`` and ``2 * (1 - alpha)``."""

    def cost(x: Tensor, weight: float) -> ValueAndSlope:
        """Return ``-weight * log(sigmoid(beta - gamma * x)) / gamma``, the loss of a negative logit."""
        shifted = gamma * x - beta
        return (weight / gamma) * softplus(shifted), weight * torch.sigmoid(shifted)

    def negative(x: Tensor, labels: Tensor) -> ValueAndSlope:
        return cost(x, 2 * (1 - alpha))

    def positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> ValueAndSlope:
        value, slope = cost(-x, 2 * alpha)
        return value, -slope

    return SigmoidTerms(negative, positive)


def focal_star_loss(
    logits: Tensor, labels: Tensor, gamma: float = 2.0, beta: float = 1.0, alpha: float = 0.5
) -> Tensor:
    """FL* (https://arxiv.org/abs/1708.02002) of each anchor, summed over classes.

    Args:
        logits: Class logits [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        gamma: Steepness, greater than 0.
        beta: Shift; larger values reduce the loss of logits near 0.
        alpha: Weight of positive terms relative to negative terms; 0.5 is the unweighted loss of the paper's appendix.

    Returns:
        One value per anchor, 0 for ignored anchors [A].

    Example:
        >>> focal_star_loss(torch.tensor([[0.0]]), torch.tensor([0]))
        tensor([0.1566])
    """
    return sum_over_classes(logits, labels, focal_star_terms(gamma, beta, alpha))
