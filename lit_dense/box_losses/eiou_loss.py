"""Efficient IoU of boxes."""

from torch import Tensor

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.eiou import eiou_loss
from .base import BoxLoss


class EIoULoss(BoxLoss):
    """EIoU and focal EIoU (https://arxiv.org/abs/2101.08158) of decoded boxes.

    No state and nothing summed over processes; an image without objects adds nothing.

    Args:
        gamma: Power of the IoU that a positive is weighed by, at least 0; 0 is plain EIoU and the paper's focal EIoU
            has 0.5. Above 0, disjoint boxes cost nothing and have no gradient.

    Raises:
        UsageError: If gamma is negative.
    """

    space = "boxes"

    def __init__(self, gamma: float = 0.0) -> None:
        super().__init__()
        self.gamma = check_range("eiou", "gamma", gamma, 0)

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """EIoU loss of each positive [P]."""
        return eiou_loss(predicted, target, self.gamma)
