"""Squared distance of deltas."""

import torch.nn.functional as F
from torch import Tensor

from ..core.samples import DenseSamples
from .base import BoxLoss


class MSELoss(BoxLoss):
    """Squared difference of the deltas.

    No state and nothing summed over processes; an image without objects adds nothing.
    """

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """Squared difference of each coordinate [P, 4]."""
        return F.mse_loss(predicted, target, reduction="none")
