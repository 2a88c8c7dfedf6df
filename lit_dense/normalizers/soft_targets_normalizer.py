"""Normalisation by the sum of soft targets, as in task-aligned detection (https://arxiv.org/abs/2108.07755)."""

from torch import Tensor

from ..core.samples import DenseSamples
from .base import Normalizer, positives_of_batch, same_for_all_images


class SoftTargetsNormalizer(Normalizer):
    """Divides the loss sum of the batch by the sum of the soft targets of its positives, over all processes.

    Without soft targets each positive counts as 1. The divisor is at least 1.
    """

    def forward(self, samples: DenseSamples) -> Tensor:
        """Compute the divisor of each image [B]."""
        targets = samples.soft_targets
        total = positives_of_batch(samples) if targets is None else samples.reduce.sum(targets.float().sum())
        return same_for_all_images(total.clamp(min=1), samples)
