"""L1 loss of box deltas, torchvision's default for RetinaNet, as a component of a criterion."""

import torch.nn.functional as F
from torch import Tensor

from ..core.samples import DenseSamples
from .base import BoxLoss


class L1Loss(BoxLoss):
    """L1 loss: absolute difference of the deltas, torchvision's default for RetinaNet.

    Stateless, no collectives. An image without objects contributes 0.
    """

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """Compute the absolute difference of each coordinate [P, 4]."""
        return F.l1_loss(predicted, target, reduction="none")
