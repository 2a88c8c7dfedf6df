"""Poly-1 focal loss (https://arxiv.org/abs/2204.12511), as a component of a criterion."""

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.fused.sigmoid_terms import SigmoidTerms
from ..functional.poly_focal import poly_focal_terms
from .base import SigmoidLoss


class PolyFocalLoss(SigmoidLoss):
    """Poly-1 focal loss (https://arxiv.org/abs/2204.12511): focal loss plus a multiple of its first polynomial term.

    Stateless, no collectives. An image without objects counts as background.

    Args:
        alpha: Weight of positive terms, in [0, 1]; negative terms have weight ``1 - alpha``.
        gamma: Focusing exponent, at least 0: larger values reduce the loss of well-classified logits.
        epsilon: Weight of the added term ``(1 - p_t) ** (gamma + 1)``, at least -1, the paper's value for RetinaNet.
        balanced: Whether alpha also weighs the added term. If not, the loss rewards slightly uncertain background where
            epsilon is below ``alpha - 1``, and slightly uncertain objects where it is below ``-alpha``.

    Raises:
        UsageError: If an argument is out of range.
    """

    accepts_dual_weights = True

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0, epsilon: float = -1.0, balanced: bool = True) -> None:
        super().__init__()
        self.alpha = check_range("poly_focal", "alpha", alpha, 0, 1)
        self.gamma = check_range("poly_focal", "gamma", gamma, 0)
        self.epsilon = check_range("poly_focal", "epsilon", epsilon, -1)
        self.balanced = balanced

    def sigmoid_terms(self, samples: DenseSamples) -> SigmoidTerms:
        """Return the terms of poly-1 focal loss."""
        return poly_focal_terms(self.alpha, self.gamma, self.epsilon, self.balanced)
