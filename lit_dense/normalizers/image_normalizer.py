"""The mean over images, as torchvision's RetinaNet divides."""

from torch import Tensor

from ..core.samples import DenseSamples
from .base import Normalizer


class ImageNormalizer(Normalizer):
    """The mean over images of each image's sum per positive, as torchvision does.

    An image without positives is divided as if it had one. Images are counted over all processes, so a last batch of
    which the processes hold different shares comes out right.
    """

    def forward(self, samples: DenseSamples) -> Tensor:
        """The divisor of each image [B]."""
        num_images = samples.reduce.sum_number(samples.num_images, samples.device)
        return samples.pos_per_image.clamp(min=1) * num_images / samples.reduce.world_size
