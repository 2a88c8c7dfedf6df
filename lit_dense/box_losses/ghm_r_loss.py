"""GHM-R as a part of a criterion."""

from typing import get_args

import torch
from torch import Tensor

from ..errors import check_choice, check_range
from ..functional.gradient_harmonized import HistogramUpdate, harmonize, norm_bins, norm_histogram
from ..samples import DenseSamples
from .base import BoxLoss


class GHMRLoss(BoxLoss):
    """Gradient harmonized box loss, GHM-R (https://arxiv.org/abs/1811.05181).

    A smooth L1 whose gradient says how far off a coordinate is; each coordinate is divided by the number of those that
    are about as far off. Brings its own normalizer. State: the moving average of the histogram, over all levels,
    images and processes. An image without objects adds nothing.

    Args:
        mu: Difference of deltas at which the slope is ``1 / sqrt(2)`` of its largest, over 0.
        bins: Equal parts of the gradient norm's range.
        momentum: Share of the past in the moving average, in [0, 1).
        update: ``corrected``, ``paper`` or ``reference``, as in the classification loss ``ghm``.

    Raises:
        UsageError: If an argument is out of range, or there is no such update.
    """

    owns = frozenset({"box_normalizer"})
    history: Tensor
    steps: Tensor

    def __init__(
        self, mu: float = 0.02, bins: int = 10, momentum: float = 0.7, update: HistogramUpdate = "corrected"
    ) -> None:
        super().__init__()
        self.mu = check_range("ghm_r", "mu", mu, 1e-6)
        self.bins = int(check_range("ghm_r", "bins", bins, 1))
        self.momentum = check_range("ghm_r", "momentum", momentum, 0, 0.9999)
        self.update: HistogramUpdate = check_choice("ghm_r", "update", update, get_args(HistogramUpdate))
        self.register_buffer("history", torch.zeros(self.bins, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """Weighted smooth L1 of each coordinate [P, 4]."""
        difference = predicted - target
        root = (difference.square() + self.mu**2).sqrt()
        norm = (difference / root).abs().detach()
        counts = samples.reduce.sum(norm_histogram(norm, self.bins))
        weights, history = harmonize(counts, self.history, self.steps, self.momentum, self.update)
        self.stage(history=history, steps=self.steps + 1)
        index = norm_bins(norm, self.bins, torch.int64)
        return (root - self.mu) * weights.to(root.dtype)[index]
