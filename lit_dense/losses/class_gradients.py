"""Accumulated gradients of each class: the base class of EQL v2 and EFL (arXiv:2012.08548, arXiv:2201.02593)."""

from abc import abstractmethod

import torch
from torch import Tensor

from ..core.samples import DenseSamples
from ..functional.equalization_v2 import gradient_ratio
from ..functional.fused.sigmoid_terms import sum_over_classes_and_gradients
from .base import SigmoidLoss, known_positives


class GradientBalancedLoss(SigmoidLoss):
    """Base class of losses that accumulate their positive and negative gradients of each class.

    The gradients are those of the loss before normalisation and weighting. They are summed over the anchors of all
    processes and over all steps so far. A step uses the sums of the steps before it.
    """

    positive_gradients: Tensor
    negative_gradients: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("positive_gradients", torch.empty(0, dtype=torch.float64))
        self.register_buffer("negative_gradients", torch.empty(0, dtype=torch.float64))

    @abstractmethod
    def ratio(self) -> Tensor:
        """Return the ratio of positive to negative gradients of each class, as the loss uses it [C]."""

    def gradient_ratio(self, initial: float) -> Tensor:
        """Return accumulated positive over negative gradients; ``initial`` before the first step, float32 [C]."""
        return gradient_ratio(self.positive_gradients, self.negative_gradients, initial).float()

    def prepare(self, num_classes: int) -> None:
        """Initialise the sums with 0."""
        self.positive_gradients = self.positive_gradients.new_zeros(num_classes)
        self.negative_gradients = self.negative_gradients.new_zeros(num_classes)

    def forward(self, logits: Tensor, labels: Tensor, samples: DenseSamples) -> Tensor:
        """Compute the loss of each anchor, summed over classes [A]."""
        targets, terms = samples.scatter_to_anchors(self.pos_targets(samples)), self.sigmoid_terms(samples)
        has_unknown, known = samples.unknown is not None, known_positives(labels, samples)
        values, gradients = sum_over_classes_and_gradients(
            logits, labels, terms, targets, samples.class_weights, has_unknown, known
        )
        positive, negative = samples.reduce.sum(torch.stack(gradients))
        self.stage(
            positive_gradients=self.positive_gradients + positive, negative_gradients=self.negative_gradients + negative
        )
        return values
