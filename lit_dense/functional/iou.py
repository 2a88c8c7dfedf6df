"""IoU loss (https://arxiv.org/abs/1608.01471), and the IoU of paired boxes."""

from typing import Literal

from torch import Tensor

from .box_pairs import box_pairs
from .box_pairs import enlarged as enlarged
from .iou_variant import PLAIN, IoUVariant

IoUForm = Literal["linear", "log", "square"]

LEAST_IOU = 1e-6
"""Lower bound of the IoU in the logarithmic form, which keeps the loss of disjoint boxes finite."""


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
    return box_pairs(predicted, target).iou


def iou_loss(predicted: Tensor, target: Tensor, form: IoUForm = "linear", variant: IoUVariant = PLAIN) -> Tensor:
    """IoU loss (https://arxiv.org/abs/1608.01471) of each pair of boxes.

    Args:
        predicted: Predicted boxes in pixels or in fractions of the image, x1 y1 x2 y2 [P, 4].
        target: Target boxes in the same format [P, 4].
        form: ``linear`` for 1 - IoU, ``log`` for -log(max(IoU, 1e-6)), ``square`` for 1 - IoU ** 2.
        variant: Changes of the overlap, and the cost of different shapes.

    Returns:
        One value per pair [P]. Disjoint boxes have no gradient.

    Example:
        >>> import torch
        >>> iou_loss(torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 1, 3, 3]]), "log")
        tensor([1.9459])
    """
    pairs = box_pairs(predicted, target)
    penalties = variant.shape_penalties(pairs)
    if form == "log":
        cost = -variant.overlap(pairs).clamp(min=LEAST_IOU).log()
        return sum(penalties, cost)
    changed = variant if form == "linear" else variant._replace(alpha=2.0)
    return changed.loss(pairs, *penalties)
