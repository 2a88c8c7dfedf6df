"""IoU of paired boxes and the losses made of it (https://arxiv.org/abs/1608.01471)."""

from typing import Literal

import torch
from torch import Tensor

IoUForm = Literal["linear", "log", "square"]

LEAST_UNION = 1e-7
"""In square pixels, after :func:`enlarged`: two boxes without area have no IoU, and count as disjoint."""
LEAST_IOU = 1e-6
"""What the logarithm sees of disjoint boxes."""
SMALL, ENLARGEMENT = 2.0, 2.0**20
"""Pairs within fewer pixels are enlarged; by a power of two, which is exact."""


def enlarged(predicted: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both boxes of each pair, multiplied by one number where they are as small as boxes in fractions of an image.

    IoU and what is made of it do not depend on the unit, but the small constants that keep them finite do: they are
    meant for pixels. A pair whose common box has a side of two pixels or more stays as it is.

    Args:
        predicted: Boxes in pixels or in fractions, x1 y1 x2 y2 [P, 4].
        target: As many [P, 4].

    Returns:
        Both in float32, or in float64 where they were.
    """
    with torch.no_grad():
        sides = predicted[:, 2:].maximum(target[:, 2:]) - predicted[:, :2].minimum(target[:, :2])
        factor = torch.where((sides < SMALL).all(1, keepdim=True), ENLARGEMENT, 1.0)
    return predicted * factor, target * factor


def paired_iou(predicted: Tensor, target: Tensor) -> Tensor:
    """Intersection over union (https://arxiv.org/abs/1608.01471) of each box with the one in the same row.

    Args:
        predicted: Boxes in pixels or in fractions, x1 y1 x2 y2 [P, 4].
        target: As many [P, 4].

    Returns:
        A value from 0 to 1 for each pair; 0 where both have no area [P].

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
        predicted: Boxes in pixels or in fractions, x1 y1 x2 y2 [P, 4].
        target: As many [P, 4].
        form: ``linear`` for 1 - IoU, ``log`` for -log(IoU) of an IoU of at least 1e-6, ``square`` for 1 - IoU ** 2.

    Returns:
        One value per pair; that of disjoint boxes has no gradient [P].

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
