"""Minimum point distance IoU loss, MPDIoU (https://arxiv.org/abs/2307.07662)."""

from torch import Tensor

from .box_pairs import box_pairs
from .iou_variant import PLAIN, IoUVariant
from .precision import float32_or_wider


def mpdiou_loss(predicted: Tensor, target: Tensor, image_sizes: Tensor, variant: IoUVariant = PLAIN) -> Tensor:
    """Minimum point distance IoU loss (https://arxiv.org/abs/2307.07662) of each pair of boxes.

    Args:
        predicted: Predicted boxes in pixels, x1 y1 x2 y2 [P, 4].
        target: Target boxes in pixels [P, 4].
        image_sizes: Height and width of the image of each pair, in pixels [P, 2].
        variant: Changes of the overlap and the penalties.

    Returns:
        One value per pair [P].

    Example:
        >>> import torch
        >>> mpdiou_loss(torch.tensor([[0.0, 0, 4, 2]]), torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[3.0, 4]]))
        tensor([0.6600])
    """
    pairs = box_pairs(predicted, target)
    difference = float32_or_wider(predicted - target)  # squares exceed half precision
    diagonal = image_sizes.to(difference.dtype).square().sum(1, keepdim=True)
    distances = difference.square() * variant.axis_weights(pairs).repeat(1, 2) / diagonal
    top_left, bottom_right = distances.unflatten(1, (2, 2)).sum(2).unbind(1)
    return variant.loss(pairs, top_left, bottom_right, *variant.shape_penalties(pairs))
