"""Varifocal loss, VFL (https://arxiv.org/abs/2008.13367), as a component of a criterion."""

from torch import Tensor

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.fused.sigmoid_terms import SigmoidTerms
from ..functional.varifocal import varifocal_terms
from .base import SigmoidLoss


class VarifocalLoss(SigmoidLoss):
    """Varifocal loss, VFL (https://arxiv.org/abs/2008.13367): positives are weighted by the IoU of their box.

    The target of a positive is the IoU of its predicted box with its ground-truth box, detached. Soft targets of a
    weighter replace it. Stateless, no collectives. An image without objects counts as background.

    Args:
        alpha: Weight of negative terms, at least 0.
        gamma: Focusing exponent of negative terms, at least 0.
        detach_weight: Whether to detach the factor ``alpha * p ** gamma`` of negative terms. RT-DETR and D-FINE detach
            it; the paper and mmdetection do not.

    Raises:
        UsageError: If an argument is out of range.
    """

    accepts_soft_targets = True
    quality_scores = True

    def __init__(self, alpha: float = 0.75, gamma: float = 2.0, detach_weight: bool = False) -> None:
        super().__init__()
        self.alpha = check_range("vfl", "alpha", alpha, 0)
        self.gamma = check_range("vfl", "gamma", gamma, 0)
        self.detach_weight = detach_weight

    def pos_targets(self, samples: DenseSamples) -> Tensor:
        """Return the IoU of each positive's predicted box, or the soft targets of a weighter [P]."""
        return samples.pos_ious if samples.soft_targets is None else samples.soft_targets

    def sigmoid_terms(self, samples: DenseSamples) -> SigmoidTerms:
        """Return the terms of varifocal loss."""
        return varifocal_terms(self.alpha, self.gamma, self.detach_weight)
