"""FL*, a variant of focal loss (appendix of https://arxiv.org/abs/1708.02002), as a component of a criterion."""

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.focal_star import focal_star_terms
from ..functional.fused.sigmoid_terms import SigmoidTerms
from .base import SigmoidLoss


class FocalStarLoss(SigmoidLoss):
    """FL* (appendix of https://arxiv.org/abs/1708.02002): cross-entropy of a steeper and shifted logit.

    Stateless, no collectives. An image without objects counts as background.

    Args:
        gamma: Steepness, at least 0.001.
        beta: Shift; larger values reduce the loss of logits near 0.
        alpha: Weight of positive terms relative to negative terms, in [0, 1]; 0.5 is the paper's unweighted loss.

    Raises:
        UsageError: If an argument is out of range.
    """

    accepts_dual_weights = True

    def __init__(self, gamma: float = 2.0, beta: float = 1.0, alpha: float = 0.5) -> None:
        super().__init__()
        self.gamma = check_range("focal_star", "gamma", gamma, 1e-3)
        self.beta = check_range("focal_star", "beta", beta, float("-inf"))
        self.alpha = check_range("focal_star", "alpha", alpha, 0, 1)

    def sigmoid_terms(self, samples: DenseSamples) -> SigmoidTerms:
        """Return the terms of FL*."""
        return focal_star_terms(self.gamma, self.beta, self.alpha)
