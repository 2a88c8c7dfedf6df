"""Equalization loss, EQL (https://arxiv.org/abs/2003.05176), as a component of a criterion."""

from collections.abc import Sequence

from ..core.errors import check_range
from ..core.per_class_table import PerClassTable
from ..core.samples import DenseSamples
from ..functional.equalization import equalization_terms
from ..functional.fused.sigmoid_terms import SigmoidTerms
from .base import SigmoidLoss


class EqualizationLoss(SigmoidLoss):
    """Equalization loss, EQL (https://arxiv.org/abs/2003.05176): other classes' objects are no negatives of rare ones.

    A class that occurs in no image, such as an unused column, is not rare: it is trained as a negative like any other.
    No running state, no collectives. An image without objects counts as background.

    Args:
        threshold: A class is rare if it occurs in a smaller fraction of the images, in [0, 1]. The authors' code uses
            0.00177 for LVIS 0.5 and 0.0011 for LVIS 1.
        frequencies: Fraction of the images that contain each class [C]; by default those of the training set.

    Raises:
        UsageError: If the threshold is out of range, or if the frequencies are unknown when training starts.
    """

    prior = 0.001

    def __init__(self, threshold: float = 0.00177, frequencies: Sequence[float] | None = None) -> None:
        super().__init__()
        self.threshold = check_range("eql", "threshold", threshold, 0, 1)
        self.frequencies = PerClassTable("eql", "frequencies", "frequencies", frequencies)

    def sigmoid_terms(self, samples: DenseSamples) -> SigmoidTerms:
        """Return the terms of equalization loss."""
        frequencies = self.frequencies.values
        return equalization_terms((frequencies > 0) & (frequencies < self.threshold))
