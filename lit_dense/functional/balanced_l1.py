"""Balanced L1 loss (https://arxiv.org/abs/1904.02701)."""

import math
from typing import Literal

import torch
from torch import Tensor

BalancedL1Curve = Literal["continuous", "published"]


def balanced_l1_loss(
    predicted: Tensor,
    target: Tensor,
    alpha: float = 0.5,
    gamma: float = 1.5,
    beta: float = 1.0,
    curve: BalancedL1Curve = "continuous",
) -> Tensor:
    """Balanced L1 (https://arxiv.org/abs/1904.02701) of each coordinate.

    Its slope is ``alpha * log(b * z / beta + 1)`` for differences z below beta and gamma above, where
    ``b = exp(gamma / alpha) - 1`` makes the two meet. The published curve has, below beta, the slope
    ``alpha * (log(b * z / beta + 1) + (b * z + 1) / (b * z + beta) - 1)``, which for beta = 1 is the same.

    Args:
        predicted: Deltas [P, 4].
        target: What they should be [P, 4].
        alpha: The smaller it is, the more small differences count.
        gamma: Slope above beta, at most ``20 * alpha``: b is the exponential of their ratio.
        beta: Difference at which the slope stops growing, above 0.
        curve: ``continuous``, the curve of beta = 1 rescaled, or ``published``, that of the authors' code.

    Returns:
        One value per coordinate [P, 4].

    Example:
        >>> balanced_l1_loss(torch.tensor([[0.5, 2.0]]), torch.zeros(1, 2))
        tensor([[0.4006, 2.5786]])
    """
    b = math.expm1(gamma / alpha)
    # The curve of beta = 1 put in z / beta, times beta, has beta here. The authors' code leaves the 1 where it is.
    shift = (1.0 if curve == "published" else beta) / b
    z = (predicted - target).abs()
    small = z.clamp(max=beta)  # the branch that is not taken must not overflow either
    inner = alpha * ((small + shift) * torch.log1p(b / beta * small) - small)
    return torch.where(z < beta, inner, gamma * z + gamma * shift - alpha * beta)
