"""Base class of ranking losses, such as AP loss (https://arxiv.org/abs/1904.06373)."""

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.ranking import RankingMethod, ranking_errors
from .base import DenseLoss


class RankingLoss(DenseLoss):
    """Base class of ranking losses: mean error of the positives, ranked among all logits of the batch.

    The loss is the mean over the positives of all processes. It brings its own normalizer and takes no weights, because
    every error depends on all logits. Positives are gathered and negatives are counted over all processes. A batch
    without positives has the loss 0 and no gradient.

    Args:
        delta: Half the width of the step in logits, at least 0. A negative counts as above a positive from ``delta``
            above it on, in part from ``delta`` below it on. 0 compares logits as they are.

    Raises:
        UsageError: If delta is negative.
    """

    exclusive = frozenset({"normalizer", "weights"})
    name: ClassVar[str]

    def __init__(self, delta: float) -> None:
        super().__init__()
        self.delta = check_range(self.name, "delta", delta, 0)

    @abstractmethod
    def method(self) -> RankingMethod:
        """Return the formulas of the loss."""

    def qualities(self, samples: DenseSamples) -> Tensor:
        """Return the quality of each positive, by which the loss compares them [P]."""
        return samples.pos_ious

    def forward(self, logits: Tensor, labels: Tensor, samples: DenseSamples) -> Tensor:
        """Compute the error of each positive over the number of positives, 0 for all other anchors [A]."""
        return self.errors(logits, labels, samples)[0]

    def errors(self, logits: Tensor, labels: Tensor, samples: DenseSamples) -> tuple[Tensor, Tensor]:
        """Compute the values of :meth:`forward` [A], and the ranks of the positives [P]."""
        qualities, rows = self.qualities(samples), samples.positives
        values, ranks = ranking_errors(logits, labels, qualities, self.method(), samples.reduce, rows)
        number = samples.reduce.sum_number(len(rows), samples.device).clamp(min=1)
        return values / number.to(values.dtype), ranks


def balanced(value: Tensor, box: Tensor) -> Tensor:
    """Return the factor that makes a box loss as large as a value; 1 if the box loss is 0.

    Args:
        value: The value, such as the classification loss [].
        box: The box loss [].
    """
    return torch.where(box > 0, value / box.clamp(min=torch.finfo(box.dtype).tiny), 1.0)
