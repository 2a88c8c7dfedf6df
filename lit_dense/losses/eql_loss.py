"""Equalization loss as a part of a criterion."""

from collections.abc import Sequence

from ..core.errors import check_range
from ..core.per_class_table import PerClassTable
from ..core.samples import DenseSamples
from ..functional.equalization import equalization_terms
from ..functional.fused.sigmoid_terms import SigmoidTerms
from .base import SigmoidLoss


class EqualizationLoss(SigmoidLoss):
    """Equalization loss (https://arxiv.org/abs/2003.05176): objects of other classes do not push a rare class down.

    A class that no image shows, such as an unused column, is not rare: its score is kept down as any other. No
    running state and nothing summed over processes; an image without objects counts as background.

    Args:
        threshold: A class that a smaller share of the images shows is rare, in [0, 1]: 0.00177 for LVIS 0.5 and
            0.0011 for LVIS 1 in the authors' code.
        frequencies: Share of the images that shows each class [C]; by default the training set's.

    Raises:
        UsageError: If the threshold is out of range, or the frequencies are not known when training starts.
    """

    prior = 0.001

    def __init__(self, threshold: float = 0.00177, frequencies: Sequence[float] | None = None) -> None:
        super().__init__()
        self.threshold = check_range("eql", "threshold", threshold, 0, 1)
        self.frequencies = PerClassTable("eql", "frequencies", "frequencies", frequencies)

    def sigmoid_terms(self, samples: DenseSamples) -> SigmoidTerms:
        """Equalization loss of single logits."""
        frequencies = self.frequencies.values
        return equalization_terms((frequencies > 0) & (frequencies < self.threshold))
