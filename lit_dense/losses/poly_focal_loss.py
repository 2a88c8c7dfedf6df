"""Poly-1 focal loss as a part of a criterion."""

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.fused.sigmoid_terms import SigmoidTerms
from ..functional.poly_focal import poly_focal_terms
from .base import SigmoidLoss


class PolyFocalLoss(SigmoidLoss):
    """Poly-1 focal loss (https://arxiv.org/abs/2204.12511): focal loss and a multiple of its first polynomial term.

    No state and nothing summed over processes; an image without objects counts as background.

    Args:
        alpha: Weight of positive elements, ``1 - alpha`` of negative ones, in [0, 1].
        gamma: How strongly right elements are turned down, at least 0.
        epsilon: Weight of the added term ``(1 - p_t) ** (gamma + 1)``, at least -1, which is the paper's for RetinaNet.
        balanced: Whether alpha weighs the added term too. Without, an epsilon below ``alpha - 1`` rewards background
            and one below ``-alpha`` objects for being a little unsure.

    Raises:
        UsageError: If an argument is out of range.
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0, epsilon: float = -1.0, balanced: bool = True) -> None:
        super().__init__()
        self.alpha = check_range("poly_focal", "alpha", alpha, 0, 1)
        self.gamma = check_range("poly_focal", "gamma", gamma, 0)
        self.epsilon = check_range("poly_focal", "epsilon", epsilon, -1)
        self.balanced = balanced

    def sigmoid_terms(self, samples: DenseSamples) -> SigmoidTerms:
        """Poly-1 focal loss of single logits."""
        return poly_focal_terms(self.alpha, self.gamma, self.epsilon, self.balanced)
