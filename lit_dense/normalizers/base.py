"""The base of normalizers."""

from torch import Tensor

from ..core.component import Component
from ..core.samples import DenseSamples


class Normalizer(Component):
    """Gives the divisor of each image's sum."""

    def forward(self, samples: DenseSamples) -> Tensor:
        """The divisor of each image of this process, float32 [B]."""
        raise NotImplementedError


def positives_of_batch(samples: DenseSamples) -> Tensor:
    """Positives of all processes."""
    return samples.reduce.sum_number(len(samples.positives), samples.device)


def same_for_all_images(divisor: Tensor, samples: DenseSamples) -> Tensor:
    """One divisor for every image, made smaller by what the mean over processes divides by."""
    return (divisor / samples.reduce.world_size).expand(samples.num_images)
