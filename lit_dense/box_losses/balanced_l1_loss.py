"""Balanced L1 distance of deltas."""

from torch import Tensor

from ..errors import check_range
from ..functional.balanced_l1 import balanced_l1_loss
from ..samples import DenseSamples
from .base import BoxLoss


class BalancedL1Loss(BoxLoss):
    """Balanced L1 (https://arxiv.org/abs/1904.02701): small differences count more than in smooth L1, large ones alike.

    No state and nothing summed over processes; an image without objects adds nothing.

    Args:
        alpha: The smaller it is, the more small differences count; at least 0.001.
        gamma: Slope above beta, from 0.001 to 20 times alpha.
        beta: Difference of deltas at which the slope stops growing, at least 0.001; the paper has 1. Any other value
            rescales the paper's curve. mmdetection's loss is another for beta other than 1: its slope there is
            ``alpha * (1 / beta - 1)`` at no difference at all, and jumps at beta.

    Raises:
        UsageError: If an argument is out of range.
    """

    def __init__(self, alpha: float = 0.5, gamma: float = 1.5, beta: float = 1.0) -> None:
        super().__init__()
        self.alpha = check_range("balanced_l1", "alpha", alpha, 0.001)
        # Their ratio is an exponent: above 20 the constants leave the range in which float32 adds anything up.
        self.gamma = check_range("balanced_l1", "gamma", gamma, 0.001, 20 * alpha)
        self.beta = check_range("balanced_l1", "beta", beta, 0.001)

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """Balanced L1 of each coordinate [P, 4]."""
        return balanced_l1_loss(predicted, target, self.alpha, self.gamma, self.beta)
