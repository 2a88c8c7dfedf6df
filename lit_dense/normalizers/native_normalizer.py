"""Normalisation by the detector's own divisor, such as the number of objects of a set predictor."""

from torch import Tensor

from ..core.errors import UsageError
from ..core.samples import DenseSamples
from .base import Normalizer


class NativeNormalizer(Normalizer):
    """Divides the loss sum of the batch by the divisor that the detector itself uses, summed over all processes.

    It is the default of adapters for detectors that count something other than positives or anchors, such as the
    objects of a set predictor. It has no name, because users never have to choose it. One number is summed over
    processes in one collective, and each image has its own factor.
    """

    def forward(self, samples: DenseSamples) -> Tensor:
        """Compute the divisor of each image [B].

        Raises:
            UsageError: If the detector does not define a divisor.
        """
        native = samples.native
        if native is None:
            raise UsageError(
                "NativeNormalizer: this detector does not define its own divisor. Choose another normalizer, "
                "such as batch."
            )
        total = samples.reduce.sum(native.count.float()).clamp(min=native.least)
        return total / samples.reduce.world_size * native.factors
