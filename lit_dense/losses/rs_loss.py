"""Rank & sort loss, RS (https://arxiv.org/abs/2107.11669), as a component of a criterion."""

import torch
from torch import Tensor

from ..core.samples import DenseSamples
from ..functional.rs import RSErrors
from .ranking_loss import RankingLoss, balanced


class RankSortLoss(RankingLoss):
    """Rank & sort loss, RS (https://arxiv.org/abs/2107.11669): positives above negatives, and better boxes above worse.

    The error of a positive is the share of negatives among the logits above it, plus how much worse the boxes of the
    positives above it are than they should be. The quality of a positive is the IoU of its predicted box, detached. The
    gradient is error-driven and no derivative of the value. The box losses are weighted by the scores, and scaled so
    that the box loss is as large as the classification loss. Stateless. An image without objects contributes negatives.

    Args:
        delta: Half the width of the step in logits, at least 0.
        self_balance: Whether to weight and scale the box loss; False leaves it to the normalizer.

    Raises:
        UsageError: If delta is negative.
    """

    name = "rs"

    def __init__(self, delta: float = 0.5, self_balance: bool = True) -> None:
        super().__init__(delta)
        self.self_balance = self_balance
        if self_balance:
            self.exclusive = self.exclusive | {"box_normalizer"}

    def method(self) -> RSErrors:
        """Return rank & sort."""
        return RSErrors(self.delta)

    def box_weights(self, classification: Tensor, box: Tensor, samples: DenseSamples) -> Tensor | None:
        """Return the weight of each positive's box loss: its score, scaled to the classification loss [P]."""
        if not self.self_balance:
            return None
        logits = samples.logits[samples.positives].detach().float()
        scores: Tensor = samples.score_logits(logits).sigmoid().amax(1)
        sums = torch.stack([classification.double().sum(), (scores * box).double().sum(), scores.double().sum()])
        value, weighted, total = samples.reduce.sum(sums)
        factor = balanced(value, weighted / total.clamp(min=1e-12)) / total.clamp(min=1e-12)
        weights: Tensor = scores * factor.to(scores.dtype)
        return weights
