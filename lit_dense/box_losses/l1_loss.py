"""L1 distance of deltas."""

import torch.nn.functional as F
from torch import Tensor

from ..core.samples import DenseSamples
from .base import BoxLoss


class L1Loss(BoxLoss):
    """Absolute difference of the deltas, torchvision's default for RetinaNet.

    No state and nothing summed over processes; an image without objects adds nothing.
    """

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """Absolute difference of each coordinate [P, 4]."""
        return F.l1_loss(predicted, target, reduction="none")
