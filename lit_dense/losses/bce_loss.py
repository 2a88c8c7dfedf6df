"""Weighted binary cross-entropy (section 3.1 of https://arxiv.org/abs/1708.02002), as a component of a criterion."""

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.bce import bce_terms
from ..functional.fused.sigmoid_terms import SigmoidTerms
from .base import SigmoidLoss


class BCELoss(SigmoidLoss):
    """Weighted binary cross-entropy (section 3.1 of https://arxiv.org/abs/1708.02002).

    Stateless, no collectives. An image without objects counts as background.

    Args:
        alpha: Weight of positive terms, in [0, 1]; negative terms have weight ``1 - alpha``.
        pos_weight: Additional factor of positive terms, at least 0.

    Raises:
        UsageError: If an argument is out of range.
    """

    accepts_soft_targets = True

    def __init__(self, alpha: float = 0.5, pos_weight: float = 1.0) -> None:
        super().__init__()
        self.alpha = check_range("bce", "alpha", alpha, 0, 1)
        self.pos_weight = check_range("bce", "pos_weight", pos_weight, 0)

    def sigmoid_terms(self, samples: DenseSamples) -> SigmoidTerms:
        """Return the terms of weighted cross-entropy."""
        return bce_terms(self.alpha, self.pos_weight)
