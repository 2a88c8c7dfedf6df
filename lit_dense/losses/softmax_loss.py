"""Softmax cross-entropy as a part of a criterion."""

import math

import torch
from torch import Tensor

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.softmax import softmax_loss, softmax_score_logits
from .base import DenseLoss


class SoftmaxLoss(DenseLoss):
    """Cross-entropy of a softmax over the classes and background.

    The head has one more column, background, and scores are the softmax's probabilities. No state and nothing summed
    over processes; an image without objects counts as background.

    Args:
        background_weight: Weight of background anchors, at least 0.

    Raises:
        UsageError: If the weight is negative.
    """

    extra_logits = 1

    def __init__(self, background_weight: float = 1.0) -> None:
        super().__init__()
        self.background_weight = check_range("softmax", "background_weight", background_weight, 0)

    def forward(self, logits: Tensor, labels: Tensor, samples: DenseSamples) -> Tensor:
        """Cross-entropy of each anchor [A]."""
        return softmax_loss(logits, labels, self.background_weight)

    def score_logits(self, logits: Tensor) -> Tensor:
        """Logits of the softmax's probabilities of the classes [..., C]."""
        return softmax_score_logits(logits)

    def prior_bias(self, num_classes: int, prior: float) -> Tensor:
        """A bias that gives all classes together the probability ``prior`` [C + 1]."""
        bias = torch.zeros(num_classes + 1)
        bias[-1] = math.log(num_classes * (1 - prior) / prior)
        return bias
