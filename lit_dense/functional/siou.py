"""Scylla IoU loss, SIoU (https://arxiv.org/abs/2205.12740)."""

import torch
from torch import Tensor

from .box_pairs import LEAST_SIDE, BoxPairs, box_pairs
from .iou_variant import PLAIN, IoUVariant, shape_cost


def siou_loss(predicted: Tensor, target: Tensor, theta: float = 4.0, variant: IoUVariant = PLAIN) -> Tensor:
    """Scylla IoU loss, SIoU (https://arxiv.org/abs/2205.12740) of each pair of boxes.

    Args:
        predicted: Predicted boxes in pixels or in fractions of the image, x1 y1 x2 y2 [P, 4].
        target: Target boxes in the same format [P, 4].
        theta: Exponent of the cost of different shapes, at least 1: larger values compare shapes less.
        variant: Changes of the overlap and the penalties.

    Returns:
        One value per pair [P].

    Example:
        >>> import torch
        >>> siou_loss(torch.tensor([[0.0, 0, 4, 2]]), torch.tensor([[0.0, 0, 2, 2]]))
        tensor([0.5707])
    """
    pairs = box_pairs(predicted, target)
    weights = variant.axis_weights(pairs)
    return variant.loss(pairs, _distance_cost(pairs, weights) / 2, shape_cost(pairs, weights, theta) / 2)


def _distance_cost(pairs: BoxPairs, weights: Tensor) -> Tensor:
    """Compute the cost of the distance of the centres, which depends on the angle of the line between them [P].

    The angle's cost ``sin(2 * arcsin(short side / line))`` is ``2 * |dx * dy| / (dx ** 2 + dy ** 2)``, 0 for equal
    centres, where the quotient is not defined.
    """
    line = pairs.offset.square().sum(1)
    apart = line > LEAST_SIDE**4
    angle = 2 * pairs.offset.prod(1).abs().where(apart, 0.0) / line.where(apart, 1.0)
    relative = weights * (pairs.offset / pairs.enclosing.clamp(min=LEAST_SIDE)).square()
    return -torch.expm1(-(2 - angle).unsqueeze(1) * relative).sum(1)
