"""No normalisation: the sum over the batch."""

import torch
from torch import Tensor

from ..core.samples import DenseSamples
from .base import Normalizer, same_for_all_images


class NoNormalizer(Normalizer):
    """Does not divide: the loss is the sum over the batch of all processes."""

    def forward(self, samples: DenseSamples) -> Tensor:
        """Compute the divisor of each image [B]."""
        return same_for_all_images(torch.ones((), device=samples.device), samples)
