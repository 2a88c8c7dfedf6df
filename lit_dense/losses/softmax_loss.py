"""Softmax cross-entropy over classes and background (no paper), as a component of a criterion."""

import math

import torch
from torch import Tensor

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.bootstrapping import BootstrapForm
from ..functional.softmax import softmax_loss, softmax_score_logits
from ..functional.unknown_classes import softmax_without_unknown
from .base import DenseLoss
from .target_change import target_change


class SoftmaxLoss(DenseLoss):
    """Softmax cross-entropy over the classes and background.

    The head has one additional column, background. Scores are the softmax probabilities. Stateless, no collectives. An
    image without objects counts as background.

    Args:
        background_weight: Weight of background anchors, at least 0.
        label_smoothing: Share of the target of every anchor that is spread over all columns, in [0, 1], as in
            ``torch.nn.functional.cross_entropy``.
        bootstrap: Mix every target with the prediction, detached: ``soft`` with the probabilities, ``hard`` with the
            best column (https://arxiv.org/abs/1412.6596). By default targets are the labels.
        bootstrap_beta: Share of the label in the mixture, in [0, 1]; by default the paper's 0.95 for ``soft`` and 0.8
            for ``hard``.

    Raises:
        UsageError: If an argument is out of range or unknown.
    """

    extra_logits = 1

    def __init__(
        self,
        background_weight: float = 1.0,
        label_smoothing: float = 0.0,
        bootstrap: BootstrapForm | None = None,
        bootstrap_beta: float | None = None,
    ) -> None:
        super().__init__()
        self.background_weight = check_range("softmax", "background_weight", background_weight, 0)
        self.change = target_change("softmax", label_smoothing, bootstrap, bootstrap_beta)

    def forward(self, logits: Tensor, labels: Tensor, samples: DenseSamples) -> Tensor:
        """Compute the cross-entropy of each anchor [A]."""
        return softmax_loss(logits, labels, self.background_weight, self.change, samples.unknown is not None)

    def without_unknown(self, samples: DenseSamples) -> Tensor:
        """Return logits whose background includes the unknown classes of an image, and in which these are hidden."""
        return softmax_without_unknown(samples.logits, samples.labels, samples.unknown_negatives)

    def score_logits(self, logits: Tensor) -> Tensor:
        """Convert logits to those whose sigmoid is the softmax probability of each class [..., C + 1] -> [..., C]."""
        return softmax_score_logits(logits)

    def prior_bias(self, num_classes: int, prior: float) -> Tensor:
        """Return the bias for which the probabilities of all classes add up to ``prior`` [C + 1]."""
        bias = torch.zeros(num_classes + 1)
        bias[-1] = math.log(num_classes * (1 - prior) / prior)
        return bias
