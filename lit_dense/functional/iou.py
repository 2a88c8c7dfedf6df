"""IoU of paired boxes and the losses made of it (https://arxiv.org/abs/1608.01471)."""

from typing import Literal

from torch import Tensor

IoUForm = Literal["linear", "log", "square"]

LEAST_UNION = 1e-7
"""In square pixels: two boxes without area have no IoU, and count as disjoint."""
LEAST_IOU = 1e-6
"""What the logarithm sees of disjoint boxes."""


def paired_iou(predicted: Tensor, target: Tensor) -> Tensor:
    """Intersection over union (https://arxiv.org/abs/1608.01471) of each box with the one in the same row.

    Args:
        predicted: Boxes in pixels, x1 y1 x2 y2 [P, 4].
        target: As many [P, 4].

    Returns:
        A value from 0 to 1 for each pair; 0 where both have no area [P].

    Example:
        >>> import torch
        >>> paired_iou(torch.tensor([[0.0, 0, 2, 2], [0, 0, 1, 1]]), torch.tensor([[1.0, 1, 3, 3], [2, 2, 3, 3]]))
        tensor([0.1429, 0.0000])
    """
    sides = (predicted[:, 2:].minimum(target[:, 2:]) - predicted[:, :2].maximum(target[:, :2])).clamp(min=0)
    intersection = sides[:, 0] * sides[:, 1]
    return intersection / (_area(predicted) + _area(target) - intersection).clamp(min=LEAST_UNION)


def iou_loss(predicted: Tensor, target: Tensor, form: IoUForm = "linear") -> Tensor:
    """IoU loss (https://arxiv.org/abs/1608.01471) of each pair of boxes.

    Args:
        predicted: Boxes in pixels, x1 y1 x2 y2 [P, 4].
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
