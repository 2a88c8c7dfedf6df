"""AP loss (https://arxiv.org/abs/1904.06373), as a component of a criterion."""

from torch import Tensor

from ..core.samples import DenseSamples
from ..functional.ap import APErrors
from .ranking_loss import RankingLoss


class APLoss(RankingLoss):
    """AP loss (https://arxiv.org/abs/1904.06373): 1 - average precision of the logits of the batch.

    The gradient is error-driven and no derivative of the value. Positives are gathered, and negatives are counted over
    all processes. Stateless. An image without objects contributes negatives.

    Args:
        delta: Half the width of the step in logits, at least 0.

    Raises:
        UsageError: If delta is negative.
    """

    name = "ap"

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__(delta)

    def method(self) -> APErrors:
        """Return AP loss."""
        return APErrors(self.delta)

    def qualities(self, samples: DenseSamples) -> Tensor:
        """Return 1 for each positive: AP does not compare positives [P]."""
        return samples.logits.new_ones(len(samples.positives))
