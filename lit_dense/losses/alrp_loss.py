"""Average localisation-recall-precision loss, aLRP (https://arxiv.org/abs/2009.13592), as a component."""

import torch
from torch import Tensor

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.alrp import ALRPErrors, localisation_weights
from .ranking_loss import RankingLoss


class ALRPLoss(RankingLoss):
    """Average localisation-recall-precision loss, aLRP (https://arxiv.org/abs/2009.13592): ranks by class and box.

    The classification part is 1 - precision at each positive; its gradient also counts the box errors of the positives
    above. The box loss of a positive is weighted by the ranks of those below it. The box loss is multiplied by a factor
    that starts at ``balance`` and follows the ratio of both parts. State: the factor, and sums of the values since its
    last change. An image without objects contributes negatives.

    Args:
        delta: Half the width of the step in logits, at least 0.
        balance: First factor of the box loss, above 0.
        balance_steps: Number of training steps after which the factor changes, at least 1; half an epoch in the paper.

    Raises:
        UsageError: If an argument is out of range.
    """

    name = "alrp"
    exclusive = RankingLoss.exclusive | {"box_normalizer"}
    factor: Tensor
    sums: Tensor
    _ranks: Tensor

    def __init__(self, delta: float = 1.0, balance: float = 50.0, balance_steps: int = 3665) -> None:
        super().__init__(delta)
        balance = check_range("alrp", "balance", balance, 1e-6)
        self.balance_steps = int(check_range("alrp", "balance_steps", balance_steps, 1))
        self.register_buffer("factor", torch.tensor(float(balance)))
        self.register_buffer("sums", torch.zeros(3))  # classification, box, steps

    def method(self) -> ALRPErrors:
        """Return aLRP."""
        return ALRPErrors(self.delta)

    def forward(self, logits: Tensor, labels: Tensor, samples: DenseSamples) -> Tensor:
        """Compute the error of each positive over the number of positives, 0 for all other anchors [A]."""
        values, self._ranks = self.errors(logits, labels, samples)  # ranks for box_weights, which follows
        return values

    def box_weights(self, classification: Tensor, box: Tensor, samples: DenseSamples) -> Tensor:
        """Return the weight of each positive's box loss by the ranks below it, times the factor [P]."""
        logits, labels, rows = samples.logits.detach(), samples.labels, samples.positives
        own = logits[rows, labels[rows]].double()
        gathered, part = samples.reduce.gather_with_own(torch.stack([own, self._ranks.double()], 1))
        weights = localisation_weights(*gathered.unbind(1))[part].to(box.dtype)
        sums = samples.reduce.sum(torch.stack([classification.double().sum(), (weights * box).double().sum()]))
        total = self.sums + torch.cat([sums, sums.new_ones(1)]).to(self.sums)
        due = total[2] >= self.balance_steps
        ratio = (total[0] + total[1]) / total[1].clamp(min=torch.finfo(total.dtype).tiny)
        self.stage(factor=torch.where(due & (total[1] > 0), ratio, self.factor), sums=torch.where(due, 0.0, total))
        return weights * self.factor
