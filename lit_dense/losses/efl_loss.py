"""Equalized focal loss, EFL (https://arxiv.org/abs/2201.02593), as a component of a criterion."""

from torch import Tensor

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.equalized_focal import equalized_focal_terms
from ..functional.fused.sigmoid_terms import SigmoidTerms
from .class_gradients import GradientBalancedLoss


class EqualizedFocalLoss(GradientBalancedLoss):
    """Equalized focal loss, EFL (https://arxiv.org/abs/2201.02593): focal loss with one exponent per class.

    State: sums of the positive and negative gradients of each class, over the anchors of all processes. The first step
    equals focal loss. An image without objects counts as background.

    Args:
        alpha: Weight of positive terms, in [0, 1]; negative terms have weight ``1 - alpha``.
        gamma: Exponent of a class whose gradients are balanced, at least 0.001.
        scale: Increase of the exponent of a class without positive gradients, at least 0.

    Raises:
        UsageError: If an argument is out of range.
    """

    prior = 0.001

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0, scale: float = 8.0) -> None:
        super().__init__()
        self.alpha = check_range("efl", "alpha", alpha, 0, 1)
        self.gamma = check_range("efl", "gamma", gamma, 1e-3)
        self.scale = check_range("efl", "scale", scale, 0)

    def ratio(self) -> Tensor:
        """Return the gradient ratio of each class, in [0, 1], initially 1 [C]."""
        return self.gradient_ratio(initial=1.0).clamp(max=1.0)

    def sigmoid_terms(self, samples: DenseSamples) -> SigmoidTerms:
        """Return the terms of equalized focal loss."""
        return equalized_focal_terms(self.ratio(), self.alpha, self.gamma, self.scale)
