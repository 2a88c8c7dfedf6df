"""State and arguments that the gradient harmonized losses of classes and boxes share."""

from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from ..core.component import Component
from ..core.errors import check_choice, check_range
from ..core.samples import DenseSamples
from ..functional.gradient_harmonized import HistogramUpdate, harmonize, harmonize_levels

HistogramLevels = Literal["joint", "separate"]


class GradientHarmonizing(Component):
    """A loss whose elements are weighted by how many have about the same gradient norm.

    State: the moving average of the histogram and the number of histograms that it has seen, summed over processes.

    Args:
        name: Name of the loss, for messages.
        bins: Equal parts of the gradient norm's range.
        momentum: Share of the past in the moving average, in [0, 1).
        update: ``corrected``, ``paper`` or ``reference``.
        power: Power of the average count that an element is divided by, in [0, 1].
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
        """Weight of each bin, of the shape of the counts; stages the next state. One collective.

        Args:
            counts: Logits of this process in each bin [bins], or in each bin of each level [num_levels, bins].
            samples: The batch.
        """
        counts = samples.reduce.sum(counts)
        of_bins, histograms = (harmonize, 1) if counts.dim() == 1 else (harmonize_levels, len(counts))
        weights, history = of_bins(counts, self.history, self.steps, self.momentum, self.update, self.power)
        self.stage(history=history, steps=self.steps + histograms)
        return weights
