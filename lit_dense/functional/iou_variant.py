"""Arguments of every IoU loss: Inner-IoU, Focaler-IoU, alpha-IoU, Shape-IoU (https://arxiv.org/abs/2311.02877).

Focaler-IoU is https://arxiv.org/abs/2401.10525, alpha-IoU https://arxiv.org/abs/2110.13675, Shape-IoU
https://arxiv.org/abs/2312.17663.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .box_pairs import LEAST_SIDE, BoxPairs, overlap_of_scaled

LEAST_BASE = 1e-6
"""Lower bound of the base of a power below 1, whose slope at 0 is infinite."""


class IoUVariant(NamedTuple):
    """The variant of an IoU loss: ``1 - f(IoU) ** alpha + sum of penalties ** alpha``.

    Args:
        inner: Ratio by which both boxes are scaled about their centres before their IoU is computed; 1 changes nothing.
        focaler: IoUs d and u of the map ``f(IoU) = clip((IoU - d) / (u - d), 0, 1)``; None changes nothing.
        alpha: Power of the overlap and of each penalty; 1 changes nothing.
        shape: Power of the target's sides in the weights of horizontal and vertical differences. Penalties are weighted
            and the cost of different shapes is added; None changes nothing.
    """

    inner: float = 1.0
    focaler: Sequence[float] | None = None
    alpha: float = 1.0
    shape: float | None = None

    def overlap(self, pairs: BoxPairs) -> Tensor:
        """Compute the overlap that replaces the IoU, before the power [P]."""
        overlap = pairs.iou if self.inner == 1 else overlap_of_scaled(pairs, self.inner)
        if self.focaler is None:
            return overlap
        low, high = self.focaler
        return ((overlap - low) / (high - low)).clamp(0, 1)

    def overlap_cost(self, pairs: BoxPairs) -> Tensor:
        """Compute ``1 - f(IoU) ** alpha`` [P]."""
        overlap = self.overlap(pairs)
        if self.alpha < 1:
            overlap = overlap.clamp(min=LEAST_BASE)
        return 1 - (overlap if self.alpha == 1 else overlap.pow(self.alpha))

    def powered(self, penalty: Tensor) -> Tensor:
        """Compute ``penalty ** alpha``; it is 0 where the penalty is 0, or below 0 by rounding."""
        if self.alpha == 1:
            return penalty
        if self.alpha > 1:
            return penalty.clamp(min=0).pow(self.alpha)
        powers: Tensor = penalty.clamp(min=LEAST_BASE).pow(self.alpha)
        return powers - float(LEAST_BASE**self.alpha)

    def axis_weights(self, pairs: BoxPairs) -> Tensor:
        """Return the weights of horizontal and vertical differences: ones, or those of the target's shape [P, 2]."""
        if self.shape is None:
            return torch.ones_like(pairs.target_sides)
        width, height = pairs.target_sides.clamp(min=LEAST_SIDE).unbind(1)
        share = self.shape * (width / height).log()  # w ** s / (w ** s + h ** s) = sigmoid(s * log(w / h))
        return 2 * torch.stack([torch.sigmoid(-share), torch.sigmoid(share)], 1)

    def shape_penalties(self, pairs: BoxPairs) -> list[Tensor]:
        """Return half the cost of different shapes, if the shape is compared [P]."""
        return [] if self.shape is None else [shape_cost(pairs, self.axis_weights(pairs)) / 2]

    def loss(self, pairs: BoxPairs, *penalties: Tensor) -> Tensor:
        """Compute ``1 - f(IoU) ** alpha + sum of penalties ** alpha`` [P]."""
        total = self.overlap_cost(pairs)
        for penalty in penalties:
            total = total + self.powered(penalty)
        return total


PLAIN = IoUVariant()
"""The IoU loss as its paper defines it."""


def distance_penalty(pairs: BoxPairs, variant: IoUVariant = PLAIN) -> Tensor:
    """Compute the squared distance of the centres over the squared diagonal of the enclosing box, weighted [P]."""
    return (variant.axis_weights(pairs) * pairs.offset.square()).sum(1) / pairs.diagonal


def shape_cost(pairs: BoxPairs, weights: Tensor, theta: float = 4.0) -> Tensor:
    """Compute the cost of different shapes of SIoU (https://arxiv.org/abs/2205.12740) and Shape-IoU [P].

    Args:
        pairs: Pairs of boxes.
        weights: Weights of the differences of width and height [P, 2].
        theta: Exponent, at least 1: larger values compare shapes less.
    """
    longest = pairs.sides.maximum(pairs.target_sides).clamp(min=LEAST_SIDE)
    difference = weights * (pairs.sides - pairs.target_sides).abs() / longest
    return ((-torch.expm1(-difference)) ** theta).sum(1)
