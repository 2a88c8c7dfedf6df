"""Smooth L1 loss (https://arxiv.org/abs/1504.08083) of box deltas, as a component of a criterion."""

import torch.nn.functional as F
from torch import Tensor

from ..core.errors import check_range
from ..core.samples import DenseSamples
from .base import BoxLoss


class SmoothL1Loss(BoxLoss):
    """Smooth L1 loss (https://arxiv.org/abs/1504.08083): quadratic below beta, linear above.

    Stateless, no collectives. An image without objects contributes 0.

    Args:
        beta: Difference of deltas at which the quadratic part ends, at least 0; 0 gives L1. Dense detectors usually
            have about 0.1.

    Raises:
        UsageError: If beta is negative.
    """

    def __init__(self, beta: float = 0.11) -> None:
        super().__init__()
        self.beta = check_range("smooth_l1", "beta", beta, 0)

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """Compute smooth L1 of each coordinate [P, 4]."""
        return F.smooth_l1_loss(predicted, target, beta=self.beta, reduction="none")
