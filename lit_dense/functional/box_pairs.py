"""Geometry of paired boxes, which all IoU losses share (https://arxiv.org/abs/1608.01471)."""

from typing import NamedTuple

import torch
from torch import Tensor

LEAST_UNION = 1e-7
"""Lower bound of the union, in square pixels after :func:`enlarged`: two boxes without area have IoU 0."""
LEAST_SQUARE = 1e-7
"""Lower bound of squared sides and diagonals that divide, in pixels after :func:`enlarged`."""
LEAST_SIDE = 1e-3
"""Side in pixels, after :func:`enlarged`, below which shapes are not compared."""
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


class BoxPairs(NamedTuple):
    """Pairs of boxes: columns are x and y.

    Args:
        predicted: Predicted boxes after :func:`enlarged` [P, 4].
        target: Target boxes after :func:`enlarged` [P, 4].
        sides: Width and height of the predicted boxes [P, 2].
        target_sides: Width and height of the target boxes [P, 2].
        offset: Centre of the predicted box minus that of the target box [P, 2].
        enclosing: Width and height of the smallest box that encloses both [P, 2].
        union: Area of the union, at least ``LEAST_UNION`` [P].
        iou: Intersection over union [P].
    """

    predicted: Tensor
    target: Tensor
    sides: Tensor
    target_sides: Tensor
    offset: Tensor
    enclosing: Tensor
    union: Tensor
    iou: Tensor

    @property
    def diagonal(self) -> Tensor:
        """Squared diagonal of the enclosing box, at least ``LEAST_SQUARE`` [P]."""
        return self.enclosing.square().sum(1).clamp(min=LEAST_SQUARE)


def box_pairs(predicted: Tensor, target: Tensor) -> BoxPairs:
    """Compute the geometry of pairs of boxes.

    Args:
        predicted: Predicted boxes in pixels or in fractions of the image, x1 y1 x2 y2 [P, 4].
        target: Target boxes in the same format [P, 4].

    Example:
        >>> box_pairs(torch.tensor([[0.0, 0, 4, 2]]), torch.tensor([[0.0, 0, 2, 2]])).iou
        tensor([0.5000])
    """
    predicted, target = enlarged(predicted, target)
    (low, high), (target_low, target_high) = predicted.split(2, 1), target.split(2, 1)
    sides, target_sides = high - low, target_high - target_low
    intersection = _area_of(high.minimum(target_high) - low.maximum(target_low))
    union = sides[:, 0] * sides[:, 1] + target_sides[:, 0] * target_sides[:, 1] - intersection
    union = union.clamp(min=LEAST_UNION)
    return BoxPairs(
        predicted,
        target,
        sides,
        target_sides,
        (low + high - target_low - target_high) / 2,
        high.maximum(target_high) - low.minimum(target_low),
        union,
        intersection / union,
    )


def _area_of(common: Tensor) -> Tensor:
    """Compute the area of the common part of two boxes from its sides, which are negative if there is none [P].

    Boxes that touch have no gradient, as in torchvision.
    """
    return torch.where((common > 0).all(1), common[:, 0] * common[:, 1], 0.0)


def overlap_of_scaled(pairs: BoxPairs, ratio: float) -> Tensor:
    """Compute the IoU of the boxes of each pair after both were scaled about their centres [P].

    Args:
        pairs: Pairs of boxes.
        ratio: Factor of the sides.
    """
    half, target_half = pairs.sides * (ratio / 2), pairs.target_sides * (ratio / 2)
    high, low = (pairs.offset + half).minimum(target_half), (pairs.offset - half).maximum(-target_half)
    intersection = _area_of(high - low)
    areas = pairs.sides[:, 0] * pairs.sides[:, 1] + pairs.target_sides[:, 0] * pairs.target_sides[:, 1]
    return intersection / (ratio**2 * areas - intersection).clamp(min=LEAST_UNION)
