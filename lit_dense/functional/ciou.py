"""Complete IoU loss, CIoU (https://arxiv.org/abs/1911.08287)."""

import torch
from torch import Tensor

from .box_pairs import LEAST_SIDE, BoxPairs, box_pairs
from .iou_variant import PLAIN, IoUVariant, distance_penalty


def ciou_loss(predicted: Tensor, target: Tensor, variant: IoUVariant = PLAIN) -> Tensor:
    """Complete IoU loss, CIoU (https://arxiv.org/abs/1911.08287) of each pair of boxes.

    Args:
        predicted: Predicted boxes in pixels or in fractions of the image, x1 y1 x2 y2 [P, 4].
        target: Target boxes in the same format [P, 4].
        variant: Changes of the overlap and the penalties.

    Returns:
        One value per pair [P].

    Example:
        >>> import torch
        >>> ciou_loss(torch.tensor([[0.0, 0, 4, 2]]), torch.tensor([[0.0, 0, 2, 2]]))
        tensor([0.5532])
    """
    pairs = box_pairs(predicted, target)
    penalties = distance_penalty(pairs, variant), _aspect_penalty(pairs), *variant.shape_penalties(pairs)
    return variant.loss(pairs, *penalties)


def _aspect_penalty(pairs: BoxPairs) -> Tensor:
    """Compute the weighted difference of the aspect ratios; 0 if a box has a side below ``LEAST_SIDE`` [P].

    The weight is detached, and computed from the plain IoU in every variant.
    """
    # 0 / 0 is NaN, and so is the gradient of w / h at h = 0. Masking the result does not remove NaN from the gradient,
    # so flat boxes are replaced before the computation.
    flat = (pairs.sides.minimum(pairs.target_sides) < LEAST_SIDE).any(1)
    (w, h), (v, u) = (sides.where(~flat.unsqueeze(1), 1.0).unbind(1) for sides in (pairs.sides, pairs.target_sides))
    difference = 4 / torch.pi**2 * (torch.atan(v / u) - torch.atan(w / h)).square()
    with torch.no_grad():
        weight = difference / (1 - pairs.iou + difference).clamp(min=1e-7)
    return weight * difference
