"""Distribution Focal Loss, DFL (https://arxiv.org/abs/2006.04388), and the distances that distributions stand for."""

import torch
from torch import Tensor

MARGIN = 0.1
"""Distance that a target stays below the last bin, as in the authors' code."""


def expected_distances(logits: Tensor) -> Tensor:
    """Compute the expectation of each distribution over the bins 0 to n - 1 (https://arxiv.org/abs/2006.04388).

    Args:
        logits: Logits of the bins [..., n].

    Returns:
        Distances in bins, from 0 to n - 1 [...].

    Example:
        >>> expected_distances(torch.zeros(1, 17))
        tensor([8.])
    """
    bins = torch.arange(logits.shape[-1], dtype=logits.dtype, device=logits.device)
    return (logits.softmax(-1) * bins).sum(-1)  # not a matrix product, which autocast would compute in half precision


def distribution_focal_loss(logits: Tensor, distances: Tensor, margin: float = MARGIN) -> Tensor:
    """Distribution Focal Loss, DFL (https://arxiv.org/abs/2006.04388), of each distribution.

    It is the cross-entropy with the two bins next to the distance, weighted by how near they are. For an integer
    distance it is the cross-entropy with its bin.

    Args:
        logits: Logits of the bins [..., n].
        distances: Target distances in bins, clamped to [0, n - 1 - margin] [...].
        margin: 0.1 as in the authors' code; Ultralytics has 0.01.

    Returns:
        One value per distribution [...].

    Example:
        >>> distribution_focal_loss(torch.zeros(1, 17), torch.tensor([2.5]))  # log(17)
        tensor([2.8332])
    """
    last = logits.shape[-1] - 1
    target = distances.clamp(0, last - margin)
    left = target.floor().clamp(max=last - 1)
    index = left.long().unsqueeze(-1)
    near = logits.log_softmax(-1).gather(-1, torch.cat([index, index + 1], -1))
    right = target - left
    return -(near[..., 0] * (1 - right) + near[..., 1] * right)
