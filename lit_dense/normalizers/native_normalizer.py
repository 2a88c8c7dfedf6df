"""The number that the detector itself divides by, as set predictors do."""

from torch import Tensor

from ..core.errors import UsageError
from ..core.samples import DenseSamples
from .base import Normalizer


class NativeNormalizer(Normalizer):
    """The batch's sum per number that the detector itself divides by, counted over all processes.

    It is the default of adapters whose detectors count something else than positives or anchors, such as the objects of
    a set predictor, and has no name: there is nothing to choose where it fits. One number is summed over processes,
    whatever each holds, and each image has a factor of its own.
    """

    def forward(self, samples: DenseSamples) -> Tensor:
        """The divisor of each image [B].

        Raises:
            UsageError: If the detector has no such number.
        """
        native = samples.native
        if native is None:
            raise UsageError(
                "NativeNormalizer: this detector gives no number of its own to divide by. Name another normalizer, "
                "such as batch."
            )
        total = samples.reduce.sum(native.count.float()).clamp(min=native.least)
        return total / samples.reduce.world_size * native.factors
