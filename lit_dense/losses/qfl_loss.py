"""Quality focal loss, QFL (https://arxiv.org/abs/2006.04388), as a component of a criterion."""

from torch import Tensor

from ..core.errors import UsageError, check_range
from ..core.samples import DenseSamples
from ..functional.fused.sigmoid_terms import SigmoidTerms
from ..functional.quality_focal import quality_focal_terms
from .base import SigmoidLoss


class QualityFocalLoss(SigmoidLoss):
    """Quality focal loss, QFL (https://arxiv.org/abs/2006.04388): trains the score to predict the IoU of the box.

    The target of a positive is the IoU of its predicted box with its ground-truth box, detached. Soft targets of a
    weighter replace it. Stateless, no collectives. An image without objects counts as background.

    Args:
        beta: Focusing exponent, 0 or at least 1: larger values reduce the loss of scores near their target.

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
        """Return the IoU of each positive's predicted box, or the soft targets of a weighter [P]."""
        return samples.pos_ious if samples.soft_targets is None else samples.soft_targets

    def sigmoid_terms(self, samples: DenseSamples) -> SigmoidTerms:
        """Return the terms of quality focal loss."""
        return quality_focal_terms(self.beta)
