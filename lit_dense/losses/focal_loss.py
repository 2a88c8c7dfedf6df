"""Focal loss as a part of a criterion."""

from ..errors import check_range
from ..functional.elements import Elements
from ..functional.focal import focal_elements
from ..samples import DenseSamples
from .base import SigmoidLoss


class FocalLoss(SigmoidLoss):
    """Focal loss (https://arxiv.org/abs/1708.02002), torchvision's own with the default arguments.

    No state and nothing summed over processes; an image without objects counts as background.

    Args:
        alpha: Weight of positive elements, ``1 - alpha`` of negative ones, in [0, 1].
        gamma: How strongly right elements are turned down, at least 0; 0 gives alpha-balanced cross-entropy.

    Raises:
        UsageError: If alpha or gamma is out of range.
    """

    accepts_soft_targets = True

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__()
        self.alpha = check_range("focal", "alpha", alpha, 0, 1)
        self.gamma = check_range("focal", "gamma", gamma, 0)

    def elements(self, samples: DenseSamples) -> Elements:
        """Focal loss of single logits."""
        return focal_elements(self.alpha, self.gamma)
