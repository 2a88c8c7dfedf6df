"""Mutual weights of the two losses of a positive, Harmonic loss (https://arxiv.org/abs/2108.10809)."""

import torch
from torch import Tensor


def harmonic_weights(classification: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the weights ``1 + exp(-other loss)`` of both losses of each positive (https://arxiv.org/abs/2108.10809).

    Args:
        classification: Classification loss of each positive, at least 0 [P].
        box: Box loss of each positive, at least 0 [P].

    Returns:
        Weights of the classification losses [P] and of the box losses [P], from 1 to 2, detached.

    Example:
        >>> harmonic_weights(torch.tensor([0.2, 1.0]), torch.tensor([0.5, 0.1]))
        (tensor([1.6065, 1.9048]), tensor([1.8187, 1.3679]))
    """
    return 1 + torch.exp(-box.detach()), 1 + torch.exp(-classification.detach())
