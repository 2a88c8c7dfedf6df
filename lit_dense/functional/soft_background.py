"""Soft sampling (https://arxiv.org/abs/1806.06986): weights of background by its overlap with objects."""

import torch
from torch import Tensor


def soft_background_weights(overlaps: Tensor, floor: float = 0.25, b: float = 50.0, c: float = 20.0) -> Tensor:
    """Compute weights of background anchors, ``a + (1 - a) exp(-b exp(-c o))`` (https://arxiv.org/abs/1806.06986).

    Args:
        overlaps: o, largest IoU of each anchor with an object of its image, in [0, 1] [N].
        floor: a, the weight far from all objects.
        b: Position of the transition: the larger, the more overlap is needed.
        c: Steepness of the transition.

    Returns:
        Weights from ``floor`` to 1 [N].

    Example:
        >>> soft_background_weights(torch.tensor([0.0, 0.05, 0.1, 0.2, 0.5]))
        tensor([0.2500, 0.2500, 0.2509, 0.5502, 0.9983])
    """
    return floor + (1 - floor) * torch.exp(-b * torch.exp(-c * overlaps))
