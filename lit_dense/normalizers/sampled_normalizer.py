"""Normalisation by the number of anchors that are not ignored, as in torchvision's Faster R-CNN."""

from torch import Tensor

from ..core.samples import DenseSamples
from .base import Normalizer, same_for_all_images


class SampledNormalizer(Normalizer):
    """Divides the loss sum of the batch by its number of positive and negative anchors, counted over all processes.

    torchvision's RPN and RoI heads use this divisor: their samplers select the anchors, and all others are ignored. The
    divisor is at least 1.
    """

    def forward(self, samples: DenseSamples) -> Tensor:
        """Compute the divisor of each image [B]."""
        return same_for_all_images(samples.reduce.sum(samples.valid.sum().float()).clamp(min=1), samples)
