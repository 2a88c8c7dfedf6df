"""Average localisation-recall-precision loss, aLRP (https://arxiv.org/abs/2009.13592)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .ap import positive_ranks
from .ranking import Errors, OneProcess, RankingMethod, Sums, ranking_errors, rows_of_pairs, step

LEAST_ABOVE = 1e-5
"""Number of negatives above a positive up to which it has no error."""


@dataclass(frozen=True)
class ALRPErrors(RankingMethod):
    """aLRP as a ranking method (https://arxiv.org/abs/2009.13592); qualities are IoUs.

    Args:
        delta: Half the width of the step in logits.
    """

    delta: float = 1.0

    def errors(self, logits: Tensor, qualities: Tensor, above: Tensor) -> Errors:
        """Compute 1 - precision of each positive; the gradient also counts the box errors of those above."""
        ranks = positive_ranks(logits, self.delta)
        total = ranks + above
        box_errors = ((1 - qualities) / 0.5).clamp(0, 1)
        worse = []
        for rows in rows_of_pairs(len(logits)):
            steps = step(logits - logits[rows, None], self.delta)
            worse.append(steps @ box_errors)
        own = step(logits.new_zeros(1), self.delta) * box_errors
        pulls = torch.where(above > LEAST_ABOVE, (torch.cat(worse) - own + above) / total, 0.0)
        spreads = torch.where(above > LEAST_ABOVE, pulls / above.clamp(min=LEAST_ABOVE), 0.0)
        return Errors(above / total, pulls, spreads, total)


def localisation_weights(logits: Tensor, ranks: Tensor) -> Tensor:
    """Compute the weight of each positive's box error in aLRP (https://arxiv.org/abs/2009.13592).

    The mean over positives of the box errors up to a positive over its rank equals the sum of these weights times the
    box errors.

    Args:
        logits: Logits of all positives [P].
        ranks: Rank of each positive among all elements [P].

    Returns:
        Weight of each positive [P].
    """
    order = (-logits).argsort(stable=True)
    shares = (1 / ranks[order]).flip(0).cumsum(0).flip(0) / max(1, len(ranks))
    return torch.empty_like(shares).index_put((order,), shares)


def alrp_loss(
    logits: Tensor, labels: Tensor, qualities: Tensor, delta: float = 1.0, reduce: Sums | None = None
) -> Tensor:
    """Classification part of aLRP (https://arxiv.org/abs/2009.13592): 1 - precision at each positive.

    The gradient is error-driven: see :func:`~lit_dense.functional.ranking.ranking_errors`.

    Args:
        logits: Class logits [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        qualities: IoU of each positive's predicted box, in the order of anchors [P].
        delta: Half the width of the step in logits; 0 for a plain comparison.
        reduce: Sums over processes; by default this process only.

    Returns:
        One value per anchor, 0 for all but positives [A]. The loss is their mean over the positives.
    """
    return ranking_errors(logits, labels, qualities, ALRPErrors(delta), reduce or OneProcess())[0]
