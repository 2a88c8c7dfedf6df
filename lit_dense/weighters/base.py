"""The base of weighters."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from ..part import Part
from ..samples import DenseSamples


class LossValues(NamedTuple):
    """What the losses said of a batch, with their graphs.

    Args:
        classification: Value of each anchor, 0 where it is ignored [A].
        box: Value of each positive, summed over coordinates [P].
        box_coordinates: As the box loss gave it [P] or [P, 4].
        image_scales: What the classification values of each image are multiplied by before they are added up [B].
        box_scales: The same for the box values [B].
    """

    classification: Tensor
    box: Tensor
    box_coordinates: Tensor
    image_scales: Tensor
    box_scales: Tensor


class Weights(NamedTuple):
    """What a weighter answers; None leaves a loss as it is.

    Args:
        classification: Weight of each anchor [A].
        box: Weight of each positive [P].
        extra: Further loss terms by name, already scaled as one process's share of the batch.
    """

    classification: Tensor | None = None
    box: Tensor | None = None
    extra: Mapping[str, Tensor] = {}


class Weighter(Part):
    """Decides how much every anchor counts; several weighters multiply.

    A weighter whose weights are no function to be trained detaches them itself. It is asked in evaluation too, where
    it must not expect sums over processes.
    """

    def soft_targets(self, samples: DenseSamples) -> Tensor:
        """Target of each positive's own class in [0, 1] [P]; asked only of a weighter that owns ``soft_targets``."""
        raise NotImplementedError

    def forward(self, samples: DenseSamples, values: LossValues) -> Weights:
        """The weights of a batch.

        Args:
            samples: What is known of the batch.
            values: What the losses said of it.
        """
        raise NotImplementedError
