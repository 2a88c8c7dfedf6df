"""Scylla IoU loss, SIoU (https://arxiv.org/abs/2205.12740), as a component of a criterion."""

from typing import Any

from torch import Tensor

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.siou import siou_loss
from .iou_family import IoUFamilyLoss


class SIoULoss(IoUFamilyLoss):
    """Scylla IoU loss, SIoU (https://arxiv.org/abs/2205.12740), of decoded boxes: distance by angle, and shape.

    Stateless, no collectives. An image without objects contributes 0.

    Args:
        theta: Exponent of the cost of different shapes, at least 1: larger values compare shapes less.
        variant: ``inner``, ``focaler``, ``alpha`` and ``shape``, the arguments of every IoU loss.

    Raises:
        UsageError: If an argument is out of range.
    """

    def __init__(self, theta: float = 4.0, **variant: Any) -> None:
        super().__init__(**variant)
        self.theta = check_range("siou", "theta", theta, 1)

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """Compute the SIoU loss of each positive [P]."""
        return siou_loss(predicted, target, self.theta, self.variant)
