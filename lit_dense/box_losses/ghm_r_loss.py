"""GHM-R as a part of a criterion."""

import torch
from torch import Tensor

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.gradient_harmonized import HistogramUpdate
from ..functional.gradient_histogram import norm_bins, norm_histogram
from ..losses.gradient_harmonizing import GradientHarmonizing, HistogramLevels
from .base import BoxLoss


class GHMRLoss(GradientHarmonizing, BoxLoss):
    """Gradient harmonized box loss, GHM-R (https://arxiv.org/abs/1811.05181).

    A smooth L1 whose gradient says how far off a coordinate is. Each coordinate is divided by a power of the number
    of those that are about as far off. Brings its own normalizer. State: the moving average of the histogram, summed
    over images and processes. An image without objects adds nothing.

    Args:
        mu: Difference of deltas at which the slope is ``1 / sqrt(2)`` of its largest, over 0.
        bins: Equal parts of the gradient norm's range.
        momentum: Share of the past in the moving average, in [0, 1).
        update: ``corrected``, ``paper`` or ``reference``, as in the classification loss ``ghm``.
        power: Power of the average count of a bin that its coordinates are divided by, in [0, 1]. The paper's GHM-R
            has 1; the default is a departure from it, by measurement (docs/box_losses/ghm_r.md).
        levels: ``joint`` or ``separate``, as in the classification loss ``ghm``.

    Raises:
        UsageError: If an argument is out of range, if there is no such update, or if ``levels`` is ``separate`` and
            the detector does not tell the sizes of its levels.
    """

    exclusive = frozenset({"box_normalizer"})

    def __init__(
        self,
        mu: float = 0.02,
        bins: int = 10,
        momentum: float = 0.7,
        update: HistogramUpdate = "corrected",
        power: float = 0.25,
        levels: HistogramLevels = "joint",
    ) -> None:
        super().__init__("ghm_r", bins, momentum, update, power, levels)
        self.mu = check_range("ghm_r", "mu", mu, 1e-6)

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """Weighted smooth L1 of each coordinate [P, 4]."""
        difference = predicted - target
        root = (difference.square() + self.mu**2).sqrt()
        norm = (difference / root).abs().detach()
        index = norm_bins(norm, self.bins, torch.int64)
        if self.levels == "joint":
            counts = norm_histogram(norm, self.bins)
        else:
            levels = samples.level_idxs[samples.positives].unsqueeze(1)
            counts = norm_histogram(norm, self.bins, levels=levels, num_levels=samples.num_levels)
            index = index + self.bins * levels
        weights = self.bin_weights(counts, samples)
        return (root - self.mu) * weights.to(root.dtype).flatten()[index]
