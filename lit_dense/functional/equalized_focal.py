"""Equalized focal loss, EFL (https://arxiv.org/abs/2201.02593)."""

from __future__ import annotations  # torch 2.4 cannot compile nested functions annotated with X | None

import torch
from torch import Tensor

from .fused.sigmoid_terms import SigmoidTerms, ValueAndSlope, sum_over_classes
from .softplus import softplus


def equalized_focal_terms(ratio: Tensor, alpha: float = 0.25, gamma: float = 2.0, scale: float = 8.0) -> SigmoidTerms:
    """Return the terms of focal loss with one exponent per class: a lower gradient ratio gives a larger exponent."""
    gammas = gamma + scale * (1 - ratio)
    factors = gammas / gamma

    def cost(x: Tensor, exponent: Tensor, weight: Tensor) -> ValueAndSlope:
        """Weight * p ** exponent * -log(1 - p)."""
        p, entropy = torch.sigmoid(x), softplus(x)
        factor = weight * torch.exp(exponent * (x - entropy))  # log p = x - softplus(x) is finite even if p rounds to 0
        return factor * entropy, factor * torch.addcmul(p, 1 - p, entropy * exponent)

    def negative(x: Tensor, labels: Tensor) -> ValueAndSlope:
        return cost(x, gammas, (1 - alpha) * factors)

    def positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> ValueAndSlope:
        column = labels.clamp(min=0)
        value, slope = cost(-x, gammas[column], alpha * factors[column])
        return value, -slope

    return SigmoidTerms(negative, positive)


def equalized_focal_loss(
    logits: Tensor, labels: Tensor, ratio: Tensor, alpha: float = 0.25, gamma: float = 2.0, scale: float = 8.0
) -> Tensor:
    """Equalized focal loss (https://arxiv.org/abs/2201.02593) of each anchor, summed over classes.

    Args:
        logits: Class logits [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        ratio: Ratio of positive to negative gradients of each class, in [0, 1]; 1 gives focal loss [C].
        alpha: Weight of positive terms, in [0, 1]; negative terms have weight ``1 - alpha``.
        gamma: Exponent of a class with ratio 1, greater than 0.
        scale: Increase of the exponent of a class with ratio 0.

    Returns:
        One value per anchor, 0 for ignored anchors [A].

    Example:
        >>> equalized_focal_loss(torch.zeros(1, 1), torch.tensor([0]), torch.tensor([0.5]))
        tensor([0.0081])
    """
    return sum_over_classes(logits, labels, equalized_focal_terms(ratio, alpha, gamma, scale))
