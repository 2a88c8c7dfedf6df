"""The number of anchors that count, as torchvision's Faster R-CNN divides."""

from torch import Tensor

from ..core.samples import DenseSamples
from .base import Normalizer, same_for_all_images


class SampledNormalizer(Normalizer):
    """The batch's sum per anchor that counts, positive or negative, counted over all processes.

    This is what the losses of torchvision's RPN and RoI heads are divided by, whose samplers draw the anchors that
    count. A batch in which none counts is divided as if one did.
    """

    def forward(self, samples: DenseSamples) -> Tensor:
        """The divisor of each image [B]."""
        return same_for_all_images(samples.reduce.sum(samples.valid.sum().float()).clamp(min=1), samples)
