"""Weights of classes by their effective number of samples as a part of a criterion."""

from collections.abc import Sequence
from typing import Any

import torch

from ..core.errors import check_range
from ..core.per_class_table import PerClassTable
from ..core.samples import DenseSamples
from ..functional.effective_number import effective_number_weights
from .base import LossValues, Weighter, Weights


class ClassBalancedWeighter(Weighter):
    """Weighs every positive by the effective number of boxes of its class (https://arxiv.org/abs/1901.05555).

    With ``focal`` it is the published class-balanced focal loss. No running state and nothing summed over processes;
    background and an image without objects keep their weight.

    Args:
        beta: In [0, 1): 0 weighs all classes alike, near 1 by the inverse of their counts.
        background_weight: Weight of background anchors, which the paper does not define.
        instance_counts: Boxes of each class [C]; by default the training set's.
        schedule: ``warmup_steps`` and ``fade_steps``, as every weighter has.

    Raises:
        UsageError: If an argument is out of range, or the counts are not known when training starts.
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
        """The weight of each anchor's class."""
        of_classes = effective_number_weights(self.instance_counts.values, self.beta).to(values.classification.dtype)
        weights = torch.full_like(values.classification, self.background_weight)
        weights[samples.positives] = of_classes[samples.pos_labels]
        return Weights(classification=weights)
