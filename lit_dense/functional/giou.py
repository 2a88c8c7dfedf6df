"""Generalized IoU loss, GIoU (https://arxiv.org/abs/1902.09630)."""

from torch import Tensor

from .box_pairs import LEAST_UNION, box_pairs
from .iou_variant import PLAIN, IoUVariant


def giou_loss(predicted: Tensor, target: Tensor, variant: IoUVariant = PLAIN) -> Tensor:
    """Generalized IoU loss, GIoU (https://arxiv.org/abs/1902.09630) of each pair of boxes.

    Args:
        predicted: Predicted boxes in pixels or in fractions of the image, x1 y1 x2 y2 [P, 4].
        target: Target boxes in the same format [P, 4].
        variant: Changes of the overlap and the penalties.

    Returns:
        One value per pair [P].

    Example:
        >>> import torch
        >>> giou_loss(torch.tensor([[0.0, 0, 4, 2]]), torch.tensor([[0.0, 0, 2, 2]]))
        tensor([0.5000])
    """
    pairs = box_pairs(predicted, target)
    area = (pairs.enclosing[:, 0] * pairs.enclosing[:, 1]).clamp(min=LEAST_UNION)
    uncovered = (area - pairs.union) / area
    return variant.loss(pairs, uncovered, *variant.shape_penalties(pairs))
