"""Gradient harmonized box loss, GHM-R (https://arxiv.org/abs/1811.05181), as a component of a criterion."""

import torch
from torch import Tensor

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.gradient_harmonized import HistogramUpdate
from ..functional.gradient_histogram import norm_bins, norm_histogram
from ..losses.ghm_base import GradientHarmonizing, HistogramLevels
from .base import BoxLoss


class GHMRLoss(GradientHarmonizing, BoxLoss):
    """Gradient harmonized box loss, GHM-R (https://arxiv.org/abs/1811.05181).

    It is a smooth L1 loss whose gradient norm measures the error of a coordinate. The loss of each coordinate is
    divided by a power of the number of coordinates with a similar error. The loss has its own normalizer. State: the
    moving average of the histogram, summed over images and processes. An image without objects contributes 0.

    Args:
        mu: Difference of deltas at which the slope is ``1 / sqrt(2)`` of its maximum, at least 1e-6.
        bins: Number of equal bins of the gradient norm's range, at least 1.
        momentum: Weight of the past in the moving average, in [0, 1).
        update: ``corrected``, ``paper`` or ``reference``, as in the classification loss ``ghm``.
        power: Power of a bin's average count by which the loss of its coordinates is divided, in [0, 1]. It is 1 in the
            paper; the default differs because it scored better (docs/box_losses/ghm_r.md).
        levels: ``joint`` or ``separate``, as in the classification loss ``ghm``.

    Raises:
        UsageError: If an argument is out of range, if ``update`` or ``levels`` is unknown, or if ``levels`` is
            ``separate`` and the detector does not provide the sizes of its levels.
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
        """Compute weighted smooth L1 of each coordinate [P, 4]."""
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
