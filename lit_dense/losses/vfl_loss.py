"""Varifocal loss as a part of a criterion."""

from torch import Tensor

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.fused.sigmoid_terms import SigmoidTerms
from ..functional.varifocal import varifocal_terms
from .base import SigmoidLoss


class VarifocalLoss(SigmoidLoss):
    """Varifocal loss (https://arxiv.org/abs/2008.13367): good boxes teach the score more.

    The target of a positive's own class is the IoU of its predicted box with its object, detached, unless a weighter
    gives soft targets. No state and nothing summed over processes; an image without objects counts as background.

    Args:
        alpha: Weight of negative elements, at least 0.
        gamma: How strongly negative elements that are right are turned down, at least 0.
        detach_weight: Whether no gradient flows through ``alpha * p ** gamma`` of negative elements. RT-DETR and D-FINE
            detach it; the paper's and mmdetection's gradient flows through it.

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
        """IoU of each positive's box [P]."""
        return samples.pos_ious if samples.soft_targets is None else samples.soft_targets

    def sigmoid_terms(self, samples: DenseSamples) -> SigmoidTerms:
        """Varifocal loss of single logits."""
        return varifocal_terms(self.alpha, self.gamma, self.detach_weight)
