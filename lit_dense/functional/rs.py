"""Rank & sort loss, RS (https://arxiv.org/abs/2107.11669)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .ranking import Errors, OneProcess, RankingMethod, Sums, ranking_errors, rows_of_pairs, step

LEAST = 1e-10


@dataclass(frozen=True)
class RSErrors(RankingMethod):
    """Rank & sort as a ranking method (https://arxiv.org/abs/2107.11669); qualities are IoUs.

    Args:
        delta: Half the width of the step in logits.
    """

    delta: float = 0.5

    def errors(self, logits: Tensor, qualities: Tensor, above: Tensor) -> Errors:
        """Compute the ranking error plus the sorting error of each positive."""
        ranks, sorting = self._sorting(logits, qualities)
        total = ranks + above
        ranking = above / total
        spreads = torch.where(above > LEAST, ranking / above.clamp(min=LEAST), 0.0)
        return Errors(ranking + sorting, ranking + sorting, spreads, total)

    def pushes(self, logits: Tensor, qualities: Tensor, upstream: Tensor) -> Tensor:
        """Share the sorting error of each positive among the worse positives above it."""
        pushes = torch.zeros_like(logits)
        _, sorting = self._sorting(logits, qualities)
        for rows in rows_of_pairs(len(logits)):
            misordered = step(logits - logits[rows, None], self.delta) * (qualities < qualities[rows, None])
            total = misordered.sum(1)
            share = torch.where(total > LEAST, upstream[rows] * sorting[rows] / total.clamp(min=LEAST), 0.0)
            pushes += share @ misordered
        return pushes

    def _sorting(self, logits: Tensor, qualities: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rank among positives and the sorting error of each positive, both [P]."""
        ranks, errors = [], []
        loss = 1 - qualities
        for rows in rows_of_pairs(len(logits)):
            steps = step(logits - logits[rows, None], self.delta)
            better = steps * (qualities >= qualities[rows, None])
            rank, rank_of_better = steps.sum(1), better.sum(1)
            worse = rank - rank_of_better > LEAST  # otherwise the two means are equal but for rounding
            error = steps @ loss / rank - better @ loss / rank_of_better
            ranks.append(rank)
            errors.append(torch.where(worse, error, 0.0))
        return torch.cat(ranks), torch.cat(errors)


def rs_loss(
    logits: Tensor, labels: Tensor, qualities: Tensor, delta: float = 0.5, reduce: Sums | None = None
) -> Tensor:
    """Rank & sort loss (https://arxiv.org/abs/2107.11669): ranking error plus sorting error of each positive.

    The ranking error is the share of negatives among the elements above a positive. The sorting error compares the mean
    of 1 - IoU over the positives above it with that over the better ones only. The gradient is error-driven: see
    :func:`~lit_dense.functional.ranking.ranking_errors`.

    Args:
        logits: Class logits [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        qualities: IoU of each positive's predicted box, in the order of anchors [P].
        delta: Half the width of the step in logits; 0 for a plain comparison.
        reduce: Sums over processes; by default this process only.

    Returns:
        One value per anchor, 0 for all but positives [A]. The loss is their mean over the positives.
    """
    return ranking_errors(logits, labels, qualities, RSErrors(delta), reduce or OneProcess())[0]
