"""Normalized Gaussian Wasserstein distance, NWD (https://arxiv.org/abs/2110.13389)."""

import torch
from torch import Tensor

from .precision import float32_or_wider

LEAST_SQUARE = 1e-7
"""Added to the squared distance, as in the authors' code: the slope of a square root is infinite at 0."""


def normalized_wasserstein(predicted: Tensor, target: Tensor, constant: float = 12.8) -> Tensor:
    """Compute ``exp(-W / constant)`` of pairs of boxes as Gaussians (https://arxiv.org/abs/2110.13389).

    ``W`` is the Wasserstein distance, ``sqrt(dx ** 2 + dy ** 2 + (dw ** 2 + dh ** 2) / 4)``, in pixels.

    Args:
        predicted: Predicted boxes in pixels, x1 y1 x2 y2 [..., 4].
        target: Target boxes in pixels, of the same shape or broadcast to it [..., 4].
        constant: Distance in pixels at which the similarity is 1 / e, above 0.

    Returns:
        Similarity of each pair, from 0 to 1 [...].

    Example:
        >>> normalized_wasserstein(torch.tensor([[0.0, 0, 4, 2]]), torch.tensor([[0.0, 0, 2, 2]]))
        tensor([0.8954])
    """
    difference = float32_or_wider(predicted - target)  # squares exceed half precision
    low, high = difference.split(2, -1)  # twice the difference of centres is low + high, of sides high - low
    squares = ((low + high) / 2).square() + ((high - low) / 2).square()
    return torch.exp(-(squares.sum(-1) + LEAST_SQUARE).sqrt() / constant)


def nwd_loss(predicted: Tensor, target: Tensor, constant: float = 12.8) -> Tensor:
    """NWD loss (https://arxiv.org/abs/2110.13389), ``1 - NWD``, of each pair of boxes.

    Args:
        predicted: Predicted boxes in pixels, x1 y1 x2 y2 [P, 4].
        target: Target boxes in pixels [P, 4].
        constant: Distance in pixels at which the similarity is 1 / e, above 0.

    Returns:
        One value per pair; 2.5e-5 for equal boxes and the default constant [P].

    Example:
        >>> nwd_loss(torch.tensor([[0.0, 0, 4, 2]]), torch.tensor([[0.0, 0, 2, 2]]))
        tensor([0.1046])
    """
    return 1 - normalized_wasserstein(predicted, target, constant)
