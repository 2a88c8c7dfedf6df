"""Seesaw loss as a part of a criterion."""

import math

import torch
from torch import Tensor

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.seesaw import seesaw_loss, seesaw_score_logits
from .base import DenseLoss


class SeesawLoss(DenseLoss):
    """Seesaw loss (https://arxiv.org/abs/2008.10032), with objectness: frequent classes push rare ones down less.

    The head has two more columns, object and background; a score is the class's probability times that of an object.
    State: positive anchors of each class so far, over all processes, this batch's included. An image without objects
    counts as background.

    Args:
        p: Strength of the mitigation by counts, at least 0.
        q: Strength of the compensation of mistakes, at least 0.
        eps: Smallest probability of the true class in that compensation, in [1e-6, 1].

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
        """Begin the counts."""
        self.counts = self.counts.new_zeros(num_classes)

    def forward(self, logits: Tensor, labels: Tensor, samples: DenseSamples) -> Tensor:
        """Objectness of each anchor, and the ranking of classes of each positive [A]."""
        seen = torch.zeros_like(self.counts).index_add(
            0, samples.pos_labels, torch.ones_like(samples.pos_labels, dtype=self.counts.dtype)
        )
        counts = self.counts + samples.reduce.sum(seen)
        self.stage(counts=counts)
        return seesaw_loss(logits, labels, counts, samples.positives, self.p, self.q, self.eps)

    def score_logits(self, logits: Tensor) -> Tensor:
        """Logits of the probability of a class times that of an object [..., C]."""
        return seesaw_score_logits(logits)

    def prior_bias(self, num_classes: int, prior: float) -> Tensor:
        """A bias that gives an object the probability ``prior`` [C + 2]."""
        bias = torch.zeros(num_classes + 2)
        bias[-1] = math.log((1 - prior) / prior)
        return bias
