"""Focal loss as a part of a criterion."""

from torch import Tensor

from ..errors import check_range
from ..functional.focal import focal_loss
from ..samples import DenseSamples
from .base import DenseLoss


class FocalLoss(DenseLoss):
    """Focal loss (https://arxiv.org/abs/1708.02002), torchvision's own with the default arguments.

    No state and nothing summed over processes; an image without objects counts as background.

    Args:
        alpha: Weight of positive elements, ``1 - alpha`` of negative ones, in [0, 1].
        gamma: How strongly right elements are turned down, at least 0; 0 gives alpha-balanced cross-entropy.

    Raises:
        UsageError: If alpha or gamma is out of range.
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__()
        self.alpha = check_range("focal", "alpha", alpha, 0, 1)
        self.gamma = check_range("focal", "gamma", gamma, 0)

    def forward(self, logits: Tensor, labels: Tensor, samples: DenseSamples) -> Tensor:
        """Focal loss of each anchor [A]."""
        return focal_loss(logits, labels, self.alpha, self.gamma)
