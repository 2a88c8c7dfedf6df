"""Mean squared error of box deltas, as a component of a criterion."""

import torch.nn.functional as F
from torch import Tensor

from ..core.samples import DenseSamples
from .base import BoxLoss


class MSELoss(BoxLoss):
    """Squared difference of the deltas, MSE.

    Stateless, no collectives. An image without objects contributes 0.
    """

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """Compute the squared difference of each coordinate [P, 4]."""
        return F.mse_loss(predicted, target, reduction="none")
