"""Weighted binary cross-entropy (section 3.1 of https://arxiv.org/abs/1708.02002), as a component of a criterion."""

from collections.abc import Sequence

from ..core.errors import check_range
from ..core.per_class_table import number_or_table, numbers
from ..core.samples import DenseSamples
from ..functional.bce import LABELS_AS_THEY_ARE, bce_terms
from ..functional.bootstrapping import BootstrapForm
from ..functional.fused.sigmoid_terms import SigmoidTerms
from .base import SigmoidLoss
from .target_change import target_change


class BCELoss(SigmoidLoss):
    """Weighted binary cross-entropy (section 3.1 of https://arxiv.org/abs/1708.02002).

    Stateless, no collectives. An image without objects counts as background.

    Args:
        alpha: Weight of positive terms, in [0, 1]; negative terms have weight ``1 - alpha``.
        pos_weight: Additional factor of positive terms, at least 0: a number, or one for each class [C].
        label_smoothing: Share of the targets of positive anchors that is spread over 0 and 1, in [0, 1]: their own
            class has the target ``1 - label_smoothing / 2``, their other classes ``label_smoothing / 2``.
        bootstrap: Mix every target with the prediction, detached: ``soft`` with the probability, ``hard`` with the
            decision at 0.5 (https://arxiv.org/abs/1412.6596). By default targets are the labels.
        bootstrap_beta: Share of the label in the mixture, in [0, 1]; by default the paper's 0.95 for ``soft`` and 0.8
            for ``hard``.

    Raises:
        UsageError: If an argument is out of range.
    """

    accepts_soft_targets = True

    def __init__(
        self,
        alpha: float = 0.5,
        pos_weight: float | Sequence[float] = 1.0,
        label_smoothing: float = 0.0,
        bootstrap: BootstrapForm | None = None,
        bootstrap_beta: float | None = None,
    ) -> None:
        super().__init__()
        self.alpha = check_range("bce", "alpha", alpha, 0, 1)
        self.pos_weight = number_or_table("bce", "pos_weight", pos_weight)
        self.change = target_change("bce", label_smoothing, bootstrap, bootstrap_beta)
        # smoothing changes the negative terms of positive anchors, whose label is only one of their objects
        self.accepts_dual_weights = self.change == LABELS_AS_THEY_ARE

    def sigmoid_terms(self, samples: DenseSamples) -> SigmoidTerms:
        """Return the terms of weighted cross-entropy."""
        return bce_terms(self.alpha, numbers(self.pos_weight), self.change)
