"""The weighted sums of losses, and the factors of images in them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..functional.fused.anchor_loss import slopes_in_backward as slopes_in_backward


def image_scales(inverse: Tensor, processes: float, weight: float, unnormalized: bool) -> Tensor:
    """Return the factor of each image in a sum: the weight over its divisor [B].

    Args:
        inverse: 1 over the divisor of each image [B].
        processes: Number of processes, over which the sums are averaged.
        weight: Weight of the loss term.
        unnormalized: Whether the loss is normalised already; then the factor is the weight times ``processes``.
    """
    if unnormalized:
        return torch.full_like(inverse, weight * processes)
    return inverse if weight == 1 else weight * inverse


def weighted_total(
    values: Tensor,
    weights: Sequence[Tensor | None],
    scales: Tensor,
    image_idxs: Tensor,
    counts: Sequence[int] | None = None,
) -> Tensor:
    """Compute the weighted sum of N losses, each multiplied by the scale of its image [].

    Args:
        values: The losses [N].
        weights: Weights of the losses; None for 1. Rows after the first N do not count [at least N].
        scales: Factor of each image [B].
        image_idxs: Image of each loss; rows after the first N do not count [at least N].
        counts: Number of losses of each image, if they are known to be in the order of images.
    """
    for weight in weights:
        if weight is not None:
            values = values * _first(weight, len(values))
    scales = scales.to(values.dtype)
    if counts and len(set(counts)) == 1:  # faster than an index
        of_losses = scales.unsqueeze(1).expand(-1, counts[0]).reshape(-1)
    else:
        of_losses = scales[_first(image_idxs, len(values))]
    return (values * of_losses).sum()


def _first(rows: Tensor, number: int) -> Tensor:
    return rows if len(rows) == number else rows[:number]
