"""Efficient IoU loss (https://arxiv.org/abs/2101.08158)."""

import torch
from torch import Tensor
from torchvision.ops import distance_box_iou_loss

from .iou import enlarged, paired_iou

LEAST_SQUARE = 1e-7
"""In square pixels, after :func:`~lit_dense.functional.iou.enlarged`: boxes without width cost 0, for it is equal."""


def eiou_loss(predicted: Tensor, target: Tensor, gamma: float = 0.0) -> Tensor:
    """EIoU and focal EIoU loss (https://arxiv.org/abs/2101.08158) of each pair of boxes.

    Args:
        predicted: Boxes in pixels or in fractions, x1 y1 x2 y2 [P, 4].
        target: As many [P, 4].
        gamma: Power of the IoU that a pair is weighed by, at least 0; no gradient flows through this weight.

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
