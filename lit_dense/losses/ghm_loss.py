"""GHM-C as a part of a criterion."""

from torch import Tensor

from ..core.samples import DenseSamples
from ..functional.gradient_harmonized import HistogramUpdate, harmonized_cross_entropy
from ..functional.gradient_histogram import classification_histogram
from .base import DenseLoss
from .gradient_harmonizing import GradientHarmonizing, HistogramLevels


class GHMLoss(GradientHarmonizing, DenseLoss):
    """Gradient harmonized cross-entropy, GHM-C (https://arxiv.org/abs/1811.05181).

    Each element is divided by a power of the number of elements with about the same gradient norm. The paper's power
    is 1. The default is 0.5, a departure from the paper: with power 1 a handful of elements weighs as much as all
    others, and short trainings stay far below focal loss (docs/losses/ghm.md has the numbers).

    Brings its own normalizer: the weights of a batch's elements add up to 1 when the batch is like the average.
    State: the moving average of the histogram, summed over images and processes. An image without objects counts as
    background.

    Args:
        bins: Equal parts of the gradient norm's range.
        momentum: Share of the past in the moving average, in [0, 1).
        update: ``corrected``, with bias correction; ``paper``, without it and divided by all bins; ``reference``, as
            the authors' code: without it, and a bin without elements keeps its average. The latter two start
            ``1 / (1 - momentum)`` times too large.
        power: Power of the average count of a bin that its elements are divided by, in [0, 1]. 1 is GHM-C; 0 is the
            mean of cross-entropy.
        levels: ``joint``, one histogram of all pyramid levels; ``separate``, as the authors trained: one for each
            level, whose losses are added up, with one moving average that the levels update in turn.

    Raises:
        UsageError: If an argument is out of range, if there is no such update, or if ``levels`` is ``separate`` and
            the detector does not tell the sizes of its levels.
    """

    exclusive = frozenset({"normalizer"})
    accepts_class_weights = True

    def __init__(
        self,
        bins: int = 30,
        momentum: float = 0.75,
        update: HistogramUpdate = "corrected",
        power: float = 0.5,
        levels: HistogramLevels = "joint",
    ) -> None:
        super().__init__("ghm", bins, momentum, update, power, levels)

    def forward(self, logits: Tensor, labels: Tensor, samples: DenseSamples) -> Tensor:
        """Weighted cross-entropy of each anchor; the weights come from the whole batch [A]."""
        level_idxs, num_levels = (None, 1) if self.levels == "joint" else (samples.level_idxs, samples.num_levels)
        class_weights = samples.class_weights
        counts = classification_histogram(logits, labels, self.bins, class_weights, level_idxs, num_levels)
        weights = self.bin_weights(counts, samples)
        return harmonized_cross_entropy(logits, labels, weights, class_weights, level_idxs)
