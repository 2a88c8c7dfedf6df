"""The base of box losses."""

from typing import ClassVar, Literal

from torch import Tensor

from ..part import Part
from ..samples import DenseSamples


class BoxLoss(Part):
    """A box loss: what the positives predict and should predict in, one value per positive out.

    Attributes:
        space: What it compares: ``deltas`` of the anchors, or decoded ``boxes`` in pixels, x1 y1 x2 y2.
    """

    space: ClassVar[Literal["deltas", "boxes"]] = "deltas"

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """One value per positive [P], or one per coordinate before their sum [P, 4].

        Args:
            predicted: Predicted deltas or boxes of the positives, float32 [P, 4].
            target: What they should be [P, 4].
            samples: Everything else that is known of the batch.
        """
        raise NotImplementedError
