"""Weights of positives by a power of the IoU, IoU-balanced losses (https://arxiv.org/abs/1908.05641)."""

import torch
from torch import Tensor


def weighted_sums(powers: Tensor, costs: Tensor) -> Tensor:
    """Compute the plain and the weighted sum of costs, to be summed over processes (https://arxiv.org/abs/1908.05641).

    Args:
        powers: IoU of each positive to the power eta [P].
        costs: Loss of each positive [P].

    Returns:
        The sum of the costs, and that of the costs times the powers, float64 [2].
    """
    costs = costs.detach().double()
    return torch.stack([costs.sum(), (costs * powers).sum()])


def iou_balanced_weights(powers: Tensor, sums: Tensor) -> Tensor:
    """Scale powers of IoUs so that the weighted sum equals the plain sum (https://arxiv.org/abs/1908.05641).

    Args:
        powers: IoU of each positive to the power eta [P].
        sums: Plain and weighted sum of the losses of the positives, from :func:`weighted_sums` [2].

    Returns:
        Weight of each positive; 1 if the weighted sum is 0, as it is if all IoUs are 0 [P].

    Example:
        >>> powers, costs = torch.tensor([0.9, 0.5, 0.7]) ** 1.5, torch.tensor([0.6, 0.3, 0.2])
        >>> iou_balanced_weights(powers, weighted_sums(powers, costs))
        tensor([1.2770, 0.5288, 0.8759])
    """
    plain, weighted = sums.unbind()
    known = weighted > 0
    return torch.where(known, powers * (plain / weighted.where(known, 1.0)).to(powers.dtype), 1.0)
