"""Alpha-balanced cross-entropy as a part of a criterion."""

from torch import Tensor

from ..errors import check_range
from ..functional.bce import bce_loss
from ..samples import DenseSamples
from .base import DenseLoss


class BCELoss(DenseLoss):
    """Alpha-balanced binary cross-entropy (section 3.1 of https://arxiv.org/abs/1708.02002).

    No state and nothing summed over processes; an image without objects counts as background.

    Args:
        alpha: Weight of positive elements, ``1 - alpha`` of negative ones, in [0, 1].

    Raises:
        UsageError: If alpha is out of range.
    """

    def __init__(self, alpha: float = 0.5) -> None:
        super().__init__()
        self.alpha = check_range("bce", "alpha", alpha, 0, 1)

    def forward(self, logits: Tensor, labels: Tensor, samples: DenseSamples) -> Tensor:
        """Cross-entropy of each anchor [A]."""
        return bce_loss(logits, labels, self.alpha)
