"""Generalized cross-entropy, GCE (https://arxiv.org/abs/1805.07836), as a component of a criterion."""

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.fused.sigmoid_terms import SigmoidTerms
from ..functional.gce import gce_terms
from .base import SigmoidLoss


class GCELoss(SigmoidLoss):
    """Generalized cross-entropy, GCE (https://arxiv.org/abs/1805.07836), for wrong labels.

    Logits that contradict their label learn little, so wrong labels do. Stateless, no collectives. An image without
    objects counts as background.

    Args:
        q: In [0, 1]: 0 gives cross-entropy, 1 the absolute error of the probability.

    Raises:
        UsageError: If q is out of range.
    """

    accepts_soft_targets = True
    accepts_dual_weights = True

    def __init__(self, q: float = 0.7) -> None:
        super().__init__()
        self.q = check_range("gce", "q", q, 0, 1)

    def sigmoid_terms(self, samples: DenseSamples) -> SigmoidTerms:
        """Return the terms of generalized cross-entropy."""
        return gce_terms(self.q)
