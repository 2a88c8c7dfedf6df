"""Matchability-aware loss, MAL (https://arxiv.org/abs/2412.04234), as a component of a criterion."""

from torch import Tensor

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.fused.sigmoid_terms import SigmoidTerms
from ..functional.mal import mal_terms
from .base import SigmoidLoss


class MALoss(SigmoidLoss):
    """Matchability-aware loss, MAL, of DEIM (https://arxiv.org/abs/2412.04234): the target is a power of the IoU.

    The target of a positive is ``iou ** gamma`` of its predicted box, detached. Soft targets of a weighter replace the
    IoU. Stateless, no collectives. An image without objects counts as background.

    Args:
        gamma: Exponent of the IoU in the target of a positive, and focusing exponent of negatives, at least 0.

    Raises:
        UsageError: If gamma is negative.
    """

    accepts_soft_targets = True
    quality_scores = True

    def __init__(self, gamma: float = 1.5) -> None:
        super().__init__()
        self.gamma = check_range("mal", "gamma", gamma, 0)

    def pos_targets(self, samples: DenseSamples) -> Tensor:
        """Return the IoU of each positive's predicted box, or the soft targets of a weighter [P]."""
        return samples.pos_ious if samples.soft_targets is None else samples.soft_targets

    def sigmoid_terms(self, samples: DenseSamples) -> SigmoidTerms:
        """Return the terms of MAL."""
        return mal_terms(self.gamma)
