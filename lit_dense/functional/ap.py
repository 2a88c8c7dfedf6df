"""AP loss (https://arxiv.org/abs/1904.06373)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .ranking import Errors, OneProcess, RankingMethod, Sums, ranking_errors, rows_of_pairs, step


@dataclass(frozen=True)
class APErrors(RankingMethod):
    """AP loss as a ranking method (https://arxiv.org/abs/1904.06373).

    Args:
        delta: Half the width of the step in logits.
    """

    delta: float = 1.0

    def errors(self, logits: Tensor, qualities: Tensor, above: Tensor) -> Errors:
        """Compute 1 - interpolated precision of each positive."""
        ranks = positive_ranks(logits, self.delta)
        total = ranks + above
        precision = ranks / total
        order = logits.argsort(stable=True)
        best = precision.clone()
        best[order] = precision[order].cummax(0).values
        scale = torch.where(best > precision, (1 - best) / (1 - precision), 1.0)
        return Errors(1 - best, 1 - best, scale / total, total)


def positive_ranks(logits: Tensor, delta: float) -> Tensor:
    """Compute the rank of each positive among the positives, itself counted as 1 (https://arxiv.org/abs/1904.06373).

    Args:
        logits: Logits of the positives [P].
        delta: Half the width of the step.
    """
    own = 1 - step(logits.new_zeros(1), delta)
    ranks = [step(logits - logits[rows, None], delta).sum(1) + own for rows in rows_of_pairs(len(logits))]
    return torch.cat(ranks)


def ap_loss(logits: Tensor, labels: Tensor, delta: float = 1.0, reduce: Sums | None = None) -> Tensor:
    """AP loss (https://arxiv.org/abs/1904.06373): 1 - interpolated precision at each positive.

    The gradient is error-driven: see :func:`~lit_dense.functional.ranking.ranking_errors`.

    Args:
        logits: Class logits [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        delta: Half the width of the step in logits; 0 for a plain comparison.
        reduce: Sums over processes; by default this process only.

    Returns:
        One value per anchor, 0 for all but positives [A]. The loss is their mean over the positives.

    Example:
        >>> ap_loss(torch.tensor([[2.0, -3.0], [0.0, -4.0]]), torch.tensor([0, -1]))
        tensor([0., 0.])
        >>> ap_loss(torch.tensor([[0.0, 5.0], [0.0, -4.0]]), torch.tensor([0, -1]))
        tensor([0.6000, 0.0000])
    """
    qualities = logits.new_ones(int((labels >= 0).sum()))
    return ranking_errors(logits, labels, qualities, APErrors(delta), reduce or OneProcess())[0]
