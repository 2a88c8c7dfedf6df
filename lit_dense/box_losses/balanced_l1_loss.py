"""Balanced L1 distance of deltas."""

from typing import get_args

from torch import Tensor

from ..core.errors import check_choice, check_range
from ..core.samples import DenseSamples
from ..functional.balanced_l1 import BalancedL1Curve, balanced_l1_loss
from .base import BoxLoss


class BalancedL1Loss(BoxLoss):
    """Balanced L1 (https://arxiv.org/abs/1904.02701): small differences count more than in smooth L1, large ones alike.

    No state and nothing summed over processes; an image without objects adds nothing.

    Args:
        alpha: The smaller it is, the more small differences count; at least 0.001.
        gamma: Slope above beta, from 0.001 to 20 times alpha.
        beta: Difference of deltas at which the slope stops growing, at least 0.001; the paper has 1.
        curve: What becomes of the paper's curve for another beta. ``continuous`` rescales it: the slope grows from 0 to
            gamma. ``published`` is the authors' code, with which their RetinaNet was trained at beta = 0.11: the slope
            is ``alpha * (1 / beta - 1)`` just beside no difference, and jumps to gamma at beta.

    Raises:
        UsageError: If an argument is out of range or unknown.
    """

    def __init__(
        self, alpha: float = 0.5, gamma: float = 1.5, beta: float = 1.0, curve: BalancedL1Curve = "continuous"
    ) -> None:
        super().__init__()
        self.alpha = check_range("balanced_l1", "alpha", alpha, 0.001)
        # Their ratio is an exponent: above 20 the constants leave the range in which float32 adds anything up.
        self.gamma = check_range("balanced_l1", "gamma", gamma, 0.001, 20 * alpha)
        self.beta = check_range("balanced_l1", "beta", beta, 0.001)
        self.curve = check_choice("balanced_l1", "curve", curve, get_args(BalancedL1Curve))

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """Balanced L1 of each coordinate [P, 4]."""
        return balanced_l1_loss(predicted, target, self.alpha, self.gamma, self.beta, self.curve)
