"""Seesaw loss (https://arxiv.org/abs/2008.10032), as a component of a criterion."""

import math

import torch
from torch import Tensor

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.seesaw import seesaw_loss, seesaw_score_logits
from ..functional.unknown_classes import seesaw_without_unknown
from .base import DenseLoss


class SeesawLoss(DenseLoss):
    """Seesaw loss (https://arxiv.org/abs/2008.10032) with objectness: frequent classes suppress rare ones less.

    The head has two additional columns, object and background. The score of a class is its probability times the
    probability of an object. State: number of positive anchors of each class so far, over all processes, including the
    current batch. An image without objects counts as background.

    Args:
        p: Exponent of the mitigation factor, which depends on class counts, at least 0.
        q: Exponent of the compensation factor, which depends on misclassifications, at least 0.
        eps: Lower bound of the ground-truth class's probability in the compensation factor, in [1e-6, 1].

    Raises:
        UsageError: If an argument is out of range.
    """

    extra_logits = 2
    counts: Tensor

    def __init__(self, p: float = 0.8, q: float = 2.0, eps: float = 0.01) -> None:
        super().__init__()
        self.p = check_range("seesaw", "p", p, 0)
        self.q = check_range("seesaw", "q", q, 0)
        self.eps = check_range("seesaw", "eps", eps, 1e-6, 1)
        self.register_buffer("counts", torch.empty(0, dtype=torch.float64))

    def prepare(self, num_classes: int) -> None:
        """Initialise the counts with 0."""
        self.counts = self.counts.new_zeros(num_classes)

    def forward(self, logits: Tensor, labels: Tensor, samples: DenseSamples) -> Tensor:
        """Compute the objectness loss of each anchor plus the class loss of each positive [A]."""
        seen = torch.zeros_like(self.counts).index_add(
            0, samples.pos_labels, torch.ones_like(samples.pos_labels, dtype=self.counts.dtype)
        )
        counts = self.counts + samples.reduce.sum(seen)
        self.stage(counts=counts)
        return seesaw_loss(logits, labels, counts, samples.positives, self.p, self.q, self.eps)

    def without_unknown(self, samples: DenseSamples) -> Tensor:
        """Return logits whose background includes the unknown classes of an image, and in which these are hidden."""
        return seesaw_without_unknown(samples.logits, samples.labels, samples.unknown_negatives)

    def score_logits(self, logits: Tensor) -> Tensor:
        """Convert logits to those of class probability times object probability [..., C + 2] -> [..., C]."""
        return seesaw_score_logits(logits)

    def prior_bias(self, num_classes: int, prior: float) -> Tensor:
        """Return the bias for which the object probability is ``prior`` [C + 2]."""
        bias = torch.zeros(num_classes + 2)
        bias[-1] = math.log((1 - prior) / prior)
        return bias
