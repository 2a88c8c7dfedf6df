"""Gradient harmonized classification loss, GHM-C (https://arxiv.org/abs/1811.05181), as a component of a criterion."""

from torch import Tensor

from ..core.samples import DenseSamples
from ..functional.gradient_harmonized import HistogramUpdate, harmonized_cross_entropy
from ..functional.gradient_histogram import classification_histogram
from .base import DenseLoss, known_positives
from .ghm_base import GradientHarmonizing, HistogramLevels


class GHMLoss(GradientHarmonizing, DenseLoss):
    """Gradient harmonized cross-entropy, GHM-C (https://arxiv.org/abs/1811.05181).

    The loss of each logit is divided by a power of the number of logits with a similar gradient norm. The power is 1 in
    the paper. The default here is 0.5: with power 1 a few logits weigh as much as all others, and short trainings stay
    far below focal loss (docs/losses/ghm.md has the numbers).

    The loss has its own normalizer: the weights of the logits of a batch add up to 1 if the batch matches the moving
    average. State: the moving average of the histogram, summed over images and processes. An image without objects
    counts as background.

    Args:
        bins: Number of equal bins of the gradient norm's range, at least 1.
        momentum: Weight of the past in the moving average, in [0, 1).
        update: Update of the moving average. ``corrected`` applies bias correction. ``paper`` does not, and divides by
            the number of all bins. ``reference`` follows the authors' code: no bias correction, and empty bins keep
            their average. Weights of the latter two start ``1 / (1 - momentum)`` times too large.
        power: Power of a bin's average count by which the loss of its logits is divided, in [0, 1]. 1 is GHM-C; 0 is
            the mean of cross-entropy.
        levels: ``joint`` uses one histogram of all pyramid levels. ``separate``, the authors' training setup, uses one
            histogram per level and adds up the losses of the levels, which update one moving average in turn.

    Raises:
        UsageError: If an argument is out of range, if ``update`` or ``levels`` is unknown, or if ``levels`` is
            ``separate`` and the detector does not provide the sizes of its levels.
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
        """Compute the weighted cross-entropy of each anchor, with weights from the whole batch [A]."""
        level_idxs, num_levels = (None, 1) if self.levels == "joint" else (samples.level_idxs, samples.num_levels)
        class_weights = samples.class_weights
        has_unknown, known = samples.unknown is not None, known_positives(labels, samples)
        counts = classification_histogram(
            logits, labels, self.bins, class_weights, level_idxs, num_levels, has_unknown, known
        )
        weights = self.bin_weights(counts, samples)
        return harmonized_cross_entropy(logits, labels, weights, class_weights, level_idxs, known)
