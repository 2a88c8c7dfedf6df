"""Quality focal loss as a part of a criterion."""

from torch import Tensor

from ..core.errors import UsageError, check_range
from ..core.samples import DenseSamples
from ..functional.fused.sigmoid_terms import SigmoidTerms
from ..functional.quality_focal import quality_focal_terms
from .base import SigmoidLoss


class QualityFocalLoss(SigmoidLoss):
    """Quality focal loss (https://arxiv.org/abs/2006.04388): the score learns how good the box is.

    The target of a positive's own class is the IoU of its predicted box with its object, detached, unless a weighter
    gives soft targets. No state and nothing summed over processes; an image without objects counts as background.

    Args:
        beta: How strongly elements near their target are turned down: 0 or at least 1.

    Raises:
        UsageError: If beta is out of range.
    """

    accepts_soft_targets = True
    quality_scores = True

    def __init__(self, beta: float = 2.0) -> None:
        super().__init__()
        self.beta = check_range("qfl", "beta", beta, 0)
        if 0 < beta < 1:
            raise UsageError(f"qfl: beta must be 0 or at least 1, not {beta}: its slope would be infinite.")

    def pos_targets(self, samples: DenseSamples) -> Tensor:
        """IoU of each positive's box [P]."""
        return samples.pos_ious if samples.soft_targets is None else samples.soft_targets

    def sigmoid_terms(self, samples: DenseSamples) -> SigmoidTerms:
        """Quality focal loss of single logits."""
        return quality_focal_terms(self.beta)
