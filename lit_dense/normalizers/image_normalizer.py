"""Normalisation of each image by its positives and mean over images, as in torchvision's RetinaNet."""

from torch import Tensor

from ..core.samples import DenseSamples
from .base import Normalizer


class ImageNormalizer(Normalizer):
    """Divides the loss sum of each image by its number of positives, and averages over images, as torchvision does.

    The divisor of an image is at least 1. Images are counted over all processes, so that a last batch is averaged
    correctly even if the processes have different numbers of images.
    """

    def forward(self, samples: DenseSamples) -> Tensor:
        """Compute the divisor of each image [B]."""
        num_images = samples.reduce.sum_number(samples.num_images, samples.device)
        return samples.pos_per_image.clamp(min=1) * num_images / samples.reduce.world_size
