"""IoU loss (https://arxiv.org/abs/1608.01471), and the IoU of paired boxes."""

from typing import Literal

import torch
from torch import Tensor

IoUForm = Literal["linear", "log", "square"]

LEAST_UNION = 1e-7
"""Lower bound of the union, in square pixels after :func:`enlarged`: two boxes without area have IoU 0."""
LEAST_IOU = 1e-6
"""Lower bound of the IoU in the logarithmic form, which keeps the loss of disjoint boxes finite."""
SMALL, ENLARGEMENT = 2.0, 2.0**20
"""Pairs of boxes within fewer than ``SMALL`` pixels are enlarged by a power of two, which is exact."""


def enlarged(predicted: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Scale up each pair of boxes that is as small as boxes in fractions of an image.

    IoU losses do not depend on the unit of the boxes. The small constants that keep them finite do, and are chosen for
    pixels. A pair stays as it is if its enclosing box has a side of two pixels or more.

    Args:
        predicted: Predicted boxes in pixels or in fractions of the image, x1 y1 x2 y2 [P, 4].
        target: Target boxes in the same format [P, 4].

    Returns:
        The scaled boxes: float64 if the input is, otherwise float32.
    """
    with torch.no_grad():
        sides = predicted[:, 2:].maximum(target[:, 2:]) - predicted[:, :2].minimum(target[:, :2])
        factor = torch.where((sides < SMALL).all(1, keepdim=True), ENLARGEMENT, 1.0)
    return predicted * factor, target * factor


def paired_iou(predicted: Tensor, target: Tensor) -> Tensor:
    """Compute the IoU (https://arxiv.org/abs/1608.01471) of each predicted box with the target box in the same row.

    Args:
        predicted: Predicted boxes in pixels or in fractions of the image, x1 y1 x2 y2 [P, 4].
        target: Target boxes in the same format [P, 4].

    Returns:
        IoU of each pair, from 0 to 1; 0 if both boxes have no area [P].

    Example:
        >>> import torch
        >>> paired_iou(torch.tensor([[0.0, 0, 2, 2], [0, 0, 1, 1]]), torch.tensor([[1.0, 1, 3, 3], [2, 2, 3, 3]]))
        tensor([0.1429, 0.0000])
    """
    predicted, target = enlarged(predicted, target)
    sides = (predicted[:, 2:].minimum(target[:, 2:]) - predicted[:, :2].maximum(target[:, :2])).clamp(min=0)
    intersection = sides[:, 0] * sides[:, 1]
    return intersection / (_area(predicted) + _area(target) - intersection).clamp(min=LEAST_UNION)


def iou_loss(predicted: Tensor, target: Tensor, form: IoUForm = "linear") -> Tensor:
    """IoU loss (https://arxiv.org/abs/1608.01471) of each pair of boxes.

    Args:
        predicted: Predicted boxes in pixels or in fractions of the image, x1 y1 x2 y2 [P, 4].
        target: Target boxes in the same format [P, 4].
        form: ``linear`` for 1 - IoU, ``log`` for -log(max(IoU, 1e-6)), ``square`` for 1 - IoU ** 2.

    Returns:
        One value per pair [P]. Disjoint boxes have no gradient.

    Example:
        >>> import torch
        >>> iou_loss(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 1, 3, 3]]), "log")
        tensor([1.9459])
    """
    iou = paired_iou(predicted, target)
    if form == "log":
        return -iou.clamp(min=LEAST_IOU).log()
    return 1 - (iou if form == "linear" else iou**2)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
