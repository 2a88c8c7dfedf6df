"""Efficient IoU loss, EIoU and focal EIoU (https://arxiv.org/abs/2101.08158)."""

from torch import Tensor

from .box_pairs import LEAST_SQUARE, box_pairs
from .iou_variant import PLAIN, IoUVariant, distance_penalty


def eiou_loss(predicted: Tensor, target: Tensor, gamma: float = 0.0, variant: IoUVariant = PLAIN) -> Tensor:
    """EIoU and focal EIoU loss (https://arxiv.org/abs/2101.08158) of each pair of boxes.

    Args:
        predicted: Predicted boxes in pixels or in fractions of the image, x1 y1 x2 y2 [P, 4].
        target: Target boxes in the same format [P, 4].
        gamma: The loss of a pair is weighted by its detached ``iou ** gamma``, at least 0.
        variant: Changes of the overlap and the penalties.

    Returns:
        One value per pair [P].

    Example:
        >>> import torch
        >>> eiou_loss(torch.tensor([[0.0, 0, 4, 2]]), torch.tensor([[0.0, 0, 2, 2]]))
        tensor([0.8000])
    """
    pairs = box_pairs(predicted, target)
    difference = variant.axis_weights(pairs) * (pairs.sides - pairs.target_sides).square()
    # If both boxes have no width, their width difference is 0 and the division gives 0.
    width, height = (difference / pairs.enclosing.square().clamp(min=LEAST_SQUARE)).unbind(1)
    penalties = distance_penalty(pairs, variant), width, height, *variant.shape_penalties(pairs)
    return variant.loss(pairs, *penalties) * pairs.iou.detach() ** gamma
