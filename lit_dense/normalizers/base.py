"""Base class of normalizers, ``Normalizer``, and helpers to compute divisors."""

from torch import Tensor

from ..core.component import Component
from ..core.samples import DenseSamples


class Normalizer(Component):
    """Base class of normalizers: computes the divisor of each image's loss sum."""

    def forward(self, samples: DenseSamples) -> Tensor:
        """Compute the divisor of each image of this process, float32 [B].

        Args:
            samples: The batch.
        """
        raise NotImplementedError


def positives_of_batch(samples: DenseSamples) -> Tensor:
    """Count the positives of all processes []."""
    return samples.reduce.sum_number(len(samples.positives), samples.device)


def same_for_all_images(divisor: Tensor, samples: DenseSamples) -> Tensor:
    """Return one divisor for all images, divided by the number of processes because their losses are averaged [B]."""
    return (divisor / samples.reduce.world_size).expand(samples.num_images)
