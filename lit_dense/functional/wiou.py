"""Wise-IoU loss, WIoU v1 to v3 (https://arxiv.org/abs/2301.10051)."""

from typing import Literal

import torch
from torch import Tensor

from .box_pairs import BoxPairs, box_pairs
from .iou_variant import PLAIN, IoUVariant

WIoUVersion = Literal["v1", "v2", "v3"]
LEAST_MEAN = 1e-6
"""Lower bound of the mean IoU loss, by which losses are divided."""


def wiou_loss(predicted: Tensor, target: Tensor, variant: IoUVariant = PLAIN) -> Tensor:
    """Wise-IoU loss v1 (https://arxiv.org/abs/2301.10051) of each pair: the IoU loss times a factor of the distance.

    Args:
        predicted: Predicted boxes in pixels or in fractions of the image, x1 y1 x2 y2 [P, 4].
        target: Target boxes in the same format [P, 4].
        variant: Changes of the overlap and the distance.

    Returns:
        One value per pair [P].

    Example:
        >>> wiou_loss(torch.tensor([[0.0, 0, 4, 2]]), torch.tensor([[0.0, 0, 2, 2]]))
        tensor([0.5256])
    """
    return wiou_of_pairs(box_pairs(predicted, target), variant)


def wiou_of_pairs(pairs: BoxPairs, variant: IoUVariant = PLAIN) -> Tensor:
    """Compute :func:`wiou_loss`; the enclosing box is detached in the factor of the distance [P]."""
    distance = (variant.axis_weights(pairs) * pairs.offset.square()).sum(1) / pairs.diagonal.detach()
    return sum(map(variant.powered, variant.shape_penalties(pairs)), distance.exp() * variant.overlap_cost(pairs))


@torch.no_grad()
def wiou_focus(
    cost: Tensor,
    mean: Tensor,
    version: WIoUVersion = "v3",
    gamma: float = 0.5,
    focus_alpha: float = 1.7,
    focus_delta: float = 2.7,
) -> Tensor:
    """Compute the focusing factor of WIoU v2 or v3 (https://arxiv.org/abs/2301.10051) from the relative IoU loss.

    Args:
        cost: IoU loss ``1 - IoU`` of each pair [P].
        mean: Running mean of the IoU loss [].
        version: ``v1`` has the factor 1. ``v2`` has ``beta ** gamma``, where ``beta = cost / mean``. ``v3`` has
            ``beta / (delta * alpha ** (beta - delta))``, which is largest at ``beta = 1 / log(alpha)``.
        gamma: Exponent of ``v2``, at least 0.
        focus_alpha: The constant alpha of ``v3``, above 1.
        focus_delta: The constant delta of ``v3``, above 0: the factor is 1 at ``beta = delta``.

    Returns:
        Factor of each pair [P].

    Example:
        >>> wiou_focus(torch.tensor([0.0, 0.5, 2.7]), torch.tensor(1.0))
        tensor([0.0000, 0.5951, 1.0000])
    """
    beta = cost / mean.clamp(min=LEAST_MEAN)
    if version == "v1":
        return torch.ones_like(beta)
    if version == "v2":
        return beta**gamma
    return beta / focus_delta * focus_alpha ** (focus_delta - beta)
