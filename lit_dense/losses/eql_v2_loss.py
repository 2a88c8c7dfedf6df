"""Equalization loss v2, EQL v2 (https://arxiv.org/abs/2012.08548), as a component of a criterion."""

from torch import Tensor

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.equalization_v2 import equalization_v2_terms, equalization_v2_weights
from ..functional.fused.sigmoid_terms import SigmoidTerms
from .class_gradients import GradientBalancedLoss


class EqualizationLossV2(GradientBalancedLoss):
    """Equalization loss v2, EQL v2 (https://arxiv.org/abs/2012.08548): balances the gradients of each class.

    Classes with mostly negative gradients get larger positive and smaller negative weights.

    State: sums of the positive and negative gradients of each class, over the anchors of all processes. The first step
    equals cross-entropy. An image without objects counts as background.

    Args:
        gamma: Steepness of the map from gradient ratio to weight, at least 0.001.
        mu: Gradient ratio at which negative terms have half their weight, at least 0.
        alpha: Increase of the weight of positive terms of a class without positive gradients, at least 0.

    Raises:
        UsageError: If an argument is out of range.
    """

    prior = 0.001

    def __init__(self, gamma: float = 12.0, mu: float = 0.8, alpha: float = 4.0) -> None:
        super().__init__()
        self.gamma = check_range("eql_v2", "gamma", gamma, 1e-3)
        self.mu = check_range("eql_v2", "mu", mu, 0)
        self.alpha = check_range("eql_v2", "alpha", alpha, 0)

    def ratio(self) -> Tensor:
        """Return the gradient ratio of each class, initially 100 [C]."""
        return self.gradient_ratio(initial=100.0)

    def sigmoid_terms(self, samples: DenseSamples) -> SigmoidTerms:
        """Return the terms of weighted cross-entropy."""
        return equalization_v2_terms(*equalization_v2_weights(self.ratio(), self.gamma, self.mu, self.alpha))
