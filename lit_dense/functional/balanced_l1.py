"""Balanced L1 loss (https://arxiv.org/abs/1904.02701)."""

import math

import torch
from torch import Tensor


def balanced_l1_loss(
    predicted: Tensor, target: Tensor, alpha: float = 0.5, gamma: float = 1.5, beta: float = 1.0
) -> Tensor:
    """Balanced L1 (https://arxiv.org/abs/1904.02701) of each coordinate.

    Its slope is ``alpha * log(b * z / beta + 1)`` for differences z below beta and gamma above, where
    ``b = exp(gamma / alpha) - 1`` makes the two meet.

    Args:
        predicted: Deltas [P, 4].
        target: What they should be [P, 4].
        alpha: The smaller it is, the more small differences count.
        gamma: Slope above beta, at most ``20 * alpha``: b is the exponential of their ratio.
        beta: Difference at which the slope stops growing, above 0.

    Returns:
        One value per coordinate [P, 4].

    Example:
        >>> balanced_l1_loss(torch.tensor([[0.5, 2.0]]), torch.zeros(1, 2))
        tensor([[0.4006, 2.5786]])
    """
    b = math.expm1(gamma / alpha)
    z = (predicted - target).abs()
    # The paper's formula is that of beta = 1. Put in z / beta, times beta: this form keeps value and slope continuous.
    small = z.clamp(max=beta)  # the branch that is not taken must not overflow either
    inner = alpha * ((small + beta / b) * torch.log1p(b / beta * small) - small)
    return torch.where(z < beta, inner, gamma * z + gamma * beta / b - alpha * beta)
