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
    """Balanced L1 loss (https://arxiv.org/abs/1904.02701) of each coordinate.

    The slope is ``alpha * log(b * z / beta + 1)`` for absolute differences ``z < beta``, and gamma above. With
    ``b = exp(gamma / alpha) - 1`` it is continuous at beta. The published curve has the slope
    ``alpha * (log(b * z / beta + 1) + (b * z + 1) / (b * z + beta) - 1)`` below beta, which is equal for beta = 1.

    Args:
        predicted: Predicted deltas [P, 4].
        target: Target deltas [P, 4].
        alpha: Smaller values increase the gradient of small differences, greater than 0.
        gamma: Slope above beta, at most ``20 * alpha``, because b grows exponentially with ``gamma / alpha``.
        beta: Difference at which the slope stops growing, greater than 0.
        curve: ``continuous``, the paper's curve for beta = 1, rescaled; or ``published``, that of the authors' code.

    Returns:
        One value per coordinate [P, 4].

    Example:
        >>> balanced_l1_loss(torch.tensor([[0.5, 2.0]]), torch.zeros(1, 2))
        tensor([[0.4006, 2.5786]])
    """
    b = math.expm1(gamma / alpha)
    # Rescaling the curve of beta = 1, f(z / beta) * beta, gives beta / b here. The authors' code keeps 1 / b.
    shift = (1.0 if curve == "published" else beta) / b
    z = (predicted - target).abs()
    small = z.clamp(max=beta)  # an overflow in the branch that is not selected would still make gradients NaN
    inner = alpha * ((small + shift) * torch.log1p(b / beta * small) - small)
    return torch.where(z < beta, inner, gamma * z + gamma * shift - alpha * beta)
