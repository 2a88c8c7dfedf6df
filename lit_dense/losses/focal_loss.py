"""Focal loss (https://arxiv.org/abs/1708.02002), as a component of a criterion."""

from collections.abc import Sequence

from ..core.errors import check_range
from ..core.per_class_table import number_or_table, numbers
from ..core.samples import DenseSamples
from ..functional.focal import focal_terms
from ..functional.fused.sigmoid_terms import SigmoidTerms
from .base import SigmoidLoss


class FocalLoss(SigmoidLoss):
    """Focal loss (https://arxiv.org/abs/1708.02002); equal to torchvision's with the default arguments.

    Stateless, no collectives. An image without objects counts as background.

    Args:
        alpha: Weight of positive terms, in [0, 1]; negative terms have weight ``1 - alpha``.
        gamma: Focusing exponent, at least 0: larger values reduce the loss of well-classified logits. 0 gives
            alpha-balanced cross-entropy.
        pos_weight: Additional factor of positive terms, at least 0: a number, or one for each class [C].

    Raises:
        UsageError: If an argument is out of range.
    """

    accepts_soft_targets = True
    accepts_dual_weights = True

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0, pos_weight: float | Sequence[float] = 1.0) -> None:
        super().__init__()
        self.alpha = check_range("focal", "alpha", alpha, 0, 1)
        self.gamma = check_range("focal", "gamma", gamma, 0)
        self.pos_weight = number_or_table("focal", "pos_weight", pos_weight)

    def sigmoid_terms(self, samples: DenseSamples) -> SigmoidTerms:
        """Return the terms of focal loss."""
        return focal_terms(self.alpha, self.gamma, numbers(self.pos_weight))
