"""IoU-aware binary cross-entropy, IA-BCE (https://arxiv.org/abs/2406.03459), as a component of a criterion."""

from torch import Tensor

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.fused.sigmoid_terms import SigmoidTerms
from ..functional.ia_bce import ia_bce_targets, ia_bce_terms
from .base import SigmoidLoss


class IoUAwareBCELoss(SigmoidLoss):
    """IoU-aware BCE of LW-DETR and RF-DETR (https://arxiv.org/abs/2406.03459): the target combines score and IoU.

    The target of a positive is ``score ** alpha * iou ** (1 - alpha)``, at least 0.01 and detached. Soft targets of a
    weighter replace the IoU. Stateless, no collectives. An image without objects counts as background.

    Args:
        alpha: Exponent of the score in the target of a positive, in [0, 1]; the exponent of the IoU is ``1 - alpha``.
        gamma: Focusing exponent of negative terms, at least 0.

    Raises:
        UsageError: If an argument is out of range.
    """

    accepts_soft_targets = True
    quality_scores = True

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__()
        self.alpha = check_range("ia_bce", "alpha", alpha, 0, 1)
        self.gamma = check_range("ia_bce", "gamma", gamma, 0)

    def pos_targets(self, samples: DenseSamples) -> Tensor:
        """Return the target of each positive [P]."""
        ious = samples.pos_ious if samples.soft_targets is None else samples.soft_targets
        return ia_bce_targets(samples.pos_scores, ious, self.alpha)

    def sigmoid_terms(self, samples: DenseSamples) -> SigmoidTerms:
        """Return the terms of IoU-aware BCE."""
        return ia_bce_terms(self.gamma)
