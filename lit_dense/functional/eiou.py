"""Efficient IoU loss, EIoU and focal EIoU (https://arxiv.org/abs/2101.08158)."""

import torch
from torch import Tensor
from torchvision.ops import distance_box_iou_loss

from .iou import enlarged, paired_iou

LEAST_SQUARE = 1e-7
"""Lower bound of squared sides, in pixels after :func:`~lit_dense.functional.iou.enlarged`.

If both boxes have no width, their width difference is 0 and the division gives 0.
"""


def eiou_loss(predicted: Tensor, target: Tensor, gamma: float = 0.0) -> Tensor:
    """EIoU and focal EIoU loss (https://arxiv.org/abs/2101.08158) of each pair of boxes.

    Args:
        predicted: Predicted boxes in pixels or in fractions of the image, x1 y1 x2 y2 [P, 4].
        target: Target boxes in the same format [P, 4].
        gamma: The loss of a pair is weighted by its detached ``iou ** gamma``, at least 0.

    Returns:
        One value per pair [P].

    Example:
        >>> import torch
        >>> eiou_loss(torch.tensor([[0.0, 0, 4, 2]]), torch.tensor([[0.0, 0, 2, 2]]))
        tensor([0.8000])
    """
    predicted, target = enlarged(predicted, target)
    enclosing = predicted[:, 2:].maximum(target[:, 2:]) - predicted[:, :2].minimum(target[:, :2])
    difference = (predicted[:, 2:] - predicted[:, :2]) - (target[:, 2:] - target[:, :2])
    sides = difference.square() / enclosing.square().clamp(min=LEAST_SQUARE)
    loss = torch.as_tensor(distance_box_iou_loss(predicted, target, reduction="none")) + sides.sum(1)
    return loss * paired_iou(predicted, target).detach() ** gamma
