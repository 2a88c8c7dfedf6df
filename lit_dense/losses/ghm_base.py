"""Base class of GHM-C and GHM-R (https://arxiv.org/abs/1811.05181): their shared arguments and state."""

from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from ..core.component import Component
from ..core.errors import check_choice, check_range
from ..core.samples import DenseSamples
from ..functional.gradient_harmonized import HistogramUpdate, harmonize, harmonize_levels

HistogramLevels = Literal["joint", "separate"]


class GradientHarmonizing(Component):
    """Base class of losses whose terms are weighted by the number of terms with a similar gradient norm.

    State: the moving average of the histogram, summed over processes, and the number of histograms in it.

    Args:
        name: Name of the loss, for messages.
        bins: Number of equal bins of the gradient norm's range.
        momentum: Weight of the past in the moving average, in [0, 1).
        update: ``corrected``, ``paper`` or ``reference``.
        power: Power of a bin's average count by which its terms are divided, in [0, 1].
        levels: ``joint`` or ``separate``.
    """

    added_args: ClassVar[dict[str, Any]] = {"power": 1.0, "levels": "joint"}
    history: Tensor
    steps: Tensor

    def __init__(
        self, name: str, bins: int, momentum: float, update: HistogramUpdate, power: float, levels: HistogramLevels
    ) -> None:
        super().__init__()
        self.bins = int(check_range(name, "bins", bins, 1))
        self.momentum = check_range(name, "momentum", momentum, 0, 0.9999)
        self.update: HistogramUpdate = check_choice(name, "update", update, get_args(HistogramUpdate))
        self.power = check_range(name, "power", power, 0, 1)
        self.levels: HistogramLevels = check_choice(name, "levels", levels, get_args(HistogramLevels))
        self.register_buffer("history", torch.zeros(self.bins, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros(()))

    def bin_weights(self, counts: Tensor, samples: DenseSamples) -> Tensor:
        """Compute the weight of each bin and stage the next state; uses one collective.

        Args:
            counts: Number of terms of this process in each bin [bins], or in each bin of each level [num_levels, bins].
            samples: The batch.

        Returns:
            Weights, in the shape of ``counts``.
        """
        counts = samples.reduce.sum(counts)
        weigh, num_histograms = (harmonize, 1) if counts.dim() == 1 else (harmonize_levels, len(counts))
        weights, history = weigh(counts, self.history, self.steps, self.momentum, self.update, self.power)
        self.stage(history=history, steps=self.steps + num_histograms)
        return weights
