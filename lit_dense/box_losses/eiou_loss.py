"""Efficient IoU loss, EIoU and focal EIoU (https://arxiv.org/abs/2101.08158), as a component of a criterion."""

from typing import Any

from torch import Tensor

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.eiou import eiou_loss
from .iou_family import IoUFamilyLoss


class EIoULoss(IoUFamilyLoss):
    """Efficient IoU loss, EIoU and focal EIoU (https://arxiv.org/abs/2101.08158), of decoded boxes.

    Stateless, no collectives. An image without objects contributes 0.

    Args:
        gamma: The loss of a positive is weighted by ``iou ** gamma``, at least 0. 0 gives EIoU; the paper's focal EIoU
            has 0.5. With gamma above 0, the loss and the gradient of disjoint boxes are 0.
        variant: ``inner``, ``focaler``, ``alpha`` and ``shape``, the arguments of every IoU loss.

    Raises:
        UsageError: If an argument is out of range.
    """

    def __init__(self, gamma: float = 0.0, **variant: Any) -> None:
        super().__init__(**variant)
        self.gamma = check_range("eiou", "gamma", gamma, 0)

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """Compute the EIoU loss of each positive [P]."""
        return eiou_loss(predicted, target, self.gamma, self.variant)
