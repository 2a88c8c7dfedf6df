"""Equalized focal loss (https://arxiv.org/abs/2201.02593)."""

from __future__ import annotations  # torch 2.4 compiles no function that is defined in another with X | None

import torch
import torch.nn.functional as F
from torch import Tensor

from .fused.sigmoid_terms import SigmoidTerms, ValueAndSlope, sum_over_classes


def equalized_focal_terms(ratio: Tensor, alpha: float = 0.25, gamma: float = 2.0, scale: float = 8.0) -> SigmoidTerms:
    """Focal loss with an exponent for each class: the less its positives pull, the less its easy negatives count."""
    gammas = gamma + scale * (1 - ratio)
    factors = gammas / gamma

    def cost(x: Tensor, exponent: Tensor, weight: Tensor) -> ValueAndSlope:
        """Weight * p ** exponent * -log(1 - p)."""
        p, entropy = torch.sigmoid(x), F.softplus(x)
        factor = weight * torch.exp(exponent * (x - entropy))  # log p = x - softplus(x), which never is log(0)
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
    """Equalized focal loss (https://arxiv.org/abs/2201.02593) of each anchor, summed over its classes.

    Args:
        logits: Scores before the sigmoid [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        ratio: Positive over negative gradient of each class, in [0, 1]; 1 gives focal loss [C].
        alpha: Weight of positive elements, ``1 - alpha`` of negative ones, in [0, 1].
        gamma: Exponent of balanced classes, over 0.
        scale: What the exponent of a class with ratio 0 is larger by.

    Returns:
        One value per anchor, 0 where it is ignored [A].

    Example:
        >>> equalized_focal_loss(torch.zeros(1, 1), torch.tensor([0]), torch.tensor([0.5]))
        tensor([0.0081])
    """
    return sum_over_classes(logits, labels, equalized_focal_terms(ratio, alpha, gamma, scale))
