"""Focal loss as a part of a criterion."""

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.focal import focal_terms
from ..functional.fused.sigmoid_terms import SigmoidTerms
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

    def sigmoid_terms(self, samples: DenseSamples) -> SigmoidTerms:
        """Focal loss of single logits."""
        return focal_terms(self.alpha, self.gamma)
