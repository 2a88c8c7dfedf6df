"""Class-balanced weights by the effective number of samples (https://arxiv.org/abs/1901.05555), as a weighter."""

from collections.abc import Sequence
from typing import Any

import torch

from ..core.errors import check_range
from ..core.per_class_table import PerClassTable
from ..core.samples import DenseSamples
from ..functional.class_balanced import effective_number_weights
from .base import LossValues, Weighter, Weights


class ClassBalancedWeighter(Weighter):
    """Weights positives by the inverse effective number of boxes of their class (https://arxiv.org/abs/1901.05555).

    With ``focal`` it is the published class-balanced focal loss. No running state, no collectives. All background
    anchors, including those of images without objects, have ``background_weight``.

    Args:
        beta: In [0, 1): 0 gives all classes the same weight; close to 1, weights are inverse to the box counts.
        background_weight: Weight of background anchors, at least 0; the paper does not define it.
        instance_counts: Number of boxes of each class [C]; by default those of the training set.
        schedule: ``warmup_steps`` and ``fade_steps``, the arguments of every weighter.

    Raises:
        UsageError: If an argument is out of range, or if the counts are unknown when training starts.
    """

    def __init__(
        self,
        beta: float = 0.9999,
        background_weight: float = 1.0,
        instance_counts: Sequence[float] | None = None,
        **schedule: Any,
    ) -> None:
        super().__init__(**schedule)
        self.beta = check_range("class_balanced", "beta", beta, 0, 1 - 1e-9)
        self.background_weight = check_range("class_balanced", "background_weight", background_weight, 0)
        self.instance_counts = PerClassTable("class_balanced", "instance_counts", "instances", instance_counts)

    def forward(self, samples: DenseSamples, values: LossValues) -> Weights:
        """Look up the weight of each anchor's class."""
        by_class = effective_number_weights(self.instance_counts.values, self.beta).to(values.classification.dtype)
        weights = torch.full_like(values.classification, self.background_weight)
        weights[samples.positives] = by_class[samples.pos_labels]
        return Weights(classification=weights)
