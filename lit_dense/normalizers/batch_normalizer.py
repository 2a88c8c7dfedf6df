"""The number of positives of the batch."""

from torch import Tensor

from ..core.samples import DenseSamples
from .base import Normalizer, positives_of_batch, same_for_all_images


class BatchNormalizer(Normalizer):
    """The batch's sum per positive, positives counted over all processes.

    A batch without positives is divided as if it had one.
    """

    def forward(self, samples: DenseSamples) -> Tensor:
        """The divisor of each image [B]."""
        return same_for_all_images(positives_of_batch(samples).clamp(min=1), samples)
