"""Effective class-margin loss, ECM (https://arxiv.org/abs/2301.09724), as a component of a criterion."""

from collections.abc import Sequence

from ..core.errors import check_range
from ..core.per_class_table import PerClassTable
from ..core.samples import DenseSamples
from ..functional.ecm import ecm_margins, ecm_terms
from ..functional.fused.sigmoid_terms import SigmoidTerms
from .base import SigmoidLoss


class EffectiveClassMarginLoss(SigmoidLoss):
    """Effective class-margin loss, ECM (https://arxiv.org/abs/2301.09724): rare classes have a larger margin.

    The loss is the cross-entropy of ``2 * logit + margin``. Scores are the sigmoid of the logit without margin. No
    running state, no collectives. An image without objects counts as background.

    Args:
        background_ratio: Number of background samples over the sum of all counts, at least 1e-3; it lowers the margins
            of all classes alike.
        image_counts: Number of images that contain each class [C]; by default those of the training set.

    Raises:
        UsageError: If an argument is out of range, or if the counts are unknown when training starts.
    """

    accepts_soft_targets = True
    # Training sees sigmoid(2 * logit + margin), which is about 0.01 if the score, sigmoid(logit), is 0.1.
    prior = 0.1

    def __init__(self, background_ratio: float = 6.3313, image_counts: Sequence[float] | None = None) -> None:
        super().__init__()
        self.background_ratio = check_range("ecm", "background_ratio", background_ratio, 1e-3)
        self.image_counts = PerClassTable("ecm", "image_counts", "images", image_counts)

    def sigmoid_terms(self, samples: DenseSamples) -> SigmoidTerms:
        """Return the terms of ECM for the classes' counts."""
        return ecm_terms(*ecm_margins(self.image_counts.values, self.background_ratio))
