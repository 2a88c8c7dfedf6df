"""Distance IoU loss, DIoU (https://arxiv.org/abs/1911.08287)."""

from torch import Tensor

from .box_pairs import box_pairs
from .iou_variant import PLAIN, IoUVariant, distance_penalty


def diou_loss(predicted: Tensor, target: Tensor, variant: IoUVariant = PLAIN) -> Tensor:
    """Distance IoU loss, DIoU (https://arxiv.org/abs/1911.08287) of each pair of boxes.

    Args:
        predicted: Predicted boxes in pixels or in fractions of the image, x1 y1 x2 y2 [P, 4].
        target: Target boxes in the same format [P, 4].
        variant: Changes of the overlap and the penalties.

    Returns:
        One value per pair [P].

    Example:
        >>> import torch
        >>> diou_loss(torch.tensor([[0.0, 0, 4, 2]]), torch.tensor([[0.0, 0, 2, 2]]))
        tensor([0.5500])
    """
    pairs = box_pairs(predicted, target)
    return variant.loss(pairs, distance_penalty(pairs, variant), *variant.shape_penalties(pairs))
