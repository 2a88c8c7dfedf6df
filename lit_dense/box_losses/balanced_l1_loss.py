"""Balanced L1 loss (https://arxiv.org/abs/1904.02701) of box deltas, as a component of a criterion."""

from typing import get_args

from torch import Tensor

from ..core.errors import check_choice, check_range
from ..core.samples import DenseSamples
from ..functional.balanced_l1 import BalancedL1Curve, balanced_l1_loss
from .base import BoxLoss


class BalancedL1Loss(BoxLoss):
    """Balanced L1 loss (https://arxiv.org/abs/1904.02701): smooth L1 with larger gradients for small differences.

    Stateless, no collectives. An image without objects contributes 0.

    Args:
        alpha: Smaller values increase the gradient of small differences; at least 0.001.
        gamma: Slope above beta, from 0.001 to 20 times alpha.
        beta: Difference of deltas at which the slope stops growing, at least 0.001; 1 in the paper.
        curve: Generalisation of the paper's curve to other values of beta. ``continuous`` rescales it, so that the
            slope grows from 0 to gamma. ``published`` is the authors' code, which trained their RetinaNet with
            beta = 0.11: the slope starts at ``alpha * (1 / beta - 1)``, and jumps to gamma at beta.

    Raises:
        UsageError: If an argument is out of range or unknown.
    """

    def __init__(
        self, alpha: float = 0.5, gamma: float = 1.5, beta: float = 1.0, curve: BalancedL1Curve = "continuous"
    ) -> None:
        super().__init__()
        self.alpha = check_range("balanced_l1", "alpha", alpha, 0.001)
        # gamma / alpha is an exponent: above 20 the constants are too large for sums in float32.
        self.gamma = check_range("balanced_l1", "gamma", gamma, 0.001, 20 * alpha)
        self.beta = check_range("balanced_l1", "beta", beta, 0.001)
        self.curve = check_choice("balanced_l1", "curve", curve, get_args(BalancedL1Curve))

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """Compute balanced L1 of each coordinate [P, 4]."""
        return balanced_l1_loss(predicted, target, self.alpha, self.gamma, self.beta, self.curve)
