"""GHM-C as a part of a criterion."""

from typing import get_args

import torch
from torch import Tensor

from ..errors import check_choice, check_range
from ..functional.elements import sum_over_classes
from ..functional.gradient_harmonized import (
    HistogramUpdate,
    classification_histogram,
    harmonize,
    harmonized_elements,
)
from ..samples import DenseSamples
from .base import DenseLoss


class GHMLoss(DenseLoss):
    """Gradient harmonized cross-entropy, GHM-C (https://arxiv.org/abs/1811.05181).

    Every element is divided by the number of elements with about the same gradient. Brings its own normalizer: the
    loss is the mean over bins of the mean cross-entropy of a bin. State: the moving average of the histogram, over
    the anchors of all levels, images and processes. An image without objects counts as background.

    Args:
        bins: Equal parts of the gradient norm's range.
        momentum: Share of the past in the moving average, in [0, 1).
        update: ``corrected``, with bias correction; ``paper``, without it and divided by all bins; ``reference``, as
            the authors' code: without it, and a bin without elements keeps its average. The latter two start
            ``1 / (1 - momentum)`` times too large.

    Raises:
        UsageError: If an argument is out of range, or there is no such update.
    """

    owns = frozenset({"normalizer"})
    accepts_class_weights = True
    history: Tensor
    steps: Tensor

    def __init__(self, bins: int = 30, momentum: float = 0.75, update: HistogramUpdate = "corrected") -> None:
        super().__init__()
        self.bins = int(check_range("ghm", "bins", bins, 1))
        self.momentum = check_range("ghm", "momentum", momentum, 0, 0.9999)
        self.update: HistogramUpdate = check_choice("ghm", "update", update, get_args(HistogramUpdate))
        self.register_buffer("history", torch.zeros(self.bins, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, logits: Tensor, labels: Tensor, samples: DenseSamples) -> Tensor:
        """Weighted cross-entropy of each anchor; the weights come from the whole batch [A]."""
        counts = classification_histogram(logits, labels, self.bins, samples.class_weights)
        weights, history = harmonize(samples.reduce.sum(counts), self.history, self.steps, self.momentum, self.update)
        self.stage(history=history, steps=self.steps + 1)
        return sum_over_classes(logits, labels, harmonized_elements(weights), class_weights=samples.class_weights)
