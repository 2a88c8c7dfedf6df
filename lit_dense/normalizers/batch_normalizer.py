"""Normalisation by the number of positives of the batch."""

from torch import Tensor

from ..core.samples import DenseSamples
from .base import Normalizer, positives_of_batch, same_for_all_images


class BatchNormalizer(Normalizer):
    """Divides the loss sum of the batch by its number of positives, counted over all processes.

    The divisor is at least 1.
    """

    def forward(self, samples: DenseSamples) -> Tensor:
        """Compute the divisor of each image [B]."""
        return same_for_all_images(positives_of_batch(samples).clamp(min=1), samples)
