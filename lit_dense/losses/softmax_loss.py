"""Softmax cross-entropy over classes and background (no paper), as a component of a criterion."""

import math

import torch
from torch import Tensor

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.softmax import softmax_loss, softmax_score_logits
from .base import DenseLoss


class SoftmaxLoss(DenseLoss):
    """Softmax cross-entropy over the classes and background.

    The head has one additional column, background. Scores are the softmax probabilities. Stateless, no collectives. An
    image without objects counts as background.

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
        """Compute the cross-entropy of each anchor [A]."""
        return softmax_loss(logits, labels, self.background_weight)

    def score_logits(self, logits: Tensor) -> Tensor:
        """Convert logits to those whose sigmoid is the softmax probability of each class [..., C + 1] -> [..., C]."""
        return softmax_score_logits(logits)

    def prior_bias(self, num_classes: int, prior: float) -> Tensor:
        """Return the bias for which the probabilities of all classes add up to ``prior`` [C + 1]."""
        bias = torch.zeros(num_classes + 1)
        bias[-1] = math.log(num_classes * (1 - prior) / prior)
        return bias
