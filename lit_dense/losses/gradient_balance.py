"""What the losses have in common that follow how strongly positives and negatives pull at each class."""

from abc import abstractmethod

import torch
from torch import Tensor

from ..core.samples import DenseSamples
from ..functional.equalization_v2 import gradient_ratio
from ..functional.fused.sigmoid_terms import sum_over_classes_and_gradients
from .base import SigmoidLoss


class GradientBalancedLoss(SigmoidLoss):
    """A loss that keeps the sums of its positive and negative gradients of each class.

    The sums are of the loss before normalisation and weighting, over the anchors of all processes, and grow as long as
    training goes on; a step uses those of the steps before it.
    """

    positive_gradients: Tensor
    negative_gradients: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("positive_gradients", torch.empty(0, dtype=torch.float64))
        self.register_buffer("negative_gradients", torch.empty(0, dtype=torch.float64))

    @abstractmethod
    def ratio(self) -> Tensor:
        """The positive gradient of each class over the negative one, as the loss uses it [C]."""

    def gradient_ratio(self, initial: float) -> Tensor:
        """Sum of positive over sum of negative gradients, ``initial`` where nothing was seen, float32 [C]."""
        return gradient_ratio(self.positive_gradients, self.negative_gradients, initial).float()

    def prepare(self, num_classes: int) -> None:
        """Begin the sums."""
        self.positive_gradients = self.positive_gradients.new_zeros(num_classes)
        self.negative_gradients = self.negative_gradients.new_zeros(num_classes)

    def forward(self, logits: Tensor, labels: Tensor, samples: DenseSamples) -> Tensor:
        """The loss of each anchor, summed over its classes [A]."""
        targets = samples.scatter_to_anchors(self.pos_targets(samples))
        values, gradients = sum_over_classes_and_gradients(
            logits, labels, self.sigmoid_terms(samples), targets, samples.class_weights
        )
        positive, negative = samples.reduce.sum(torch.stack(gradients))
        self.stage(
            positive_gradients=self.positive_gradients + positive, negative_gradients=self.negative_gradients + negative
        )
        return values
