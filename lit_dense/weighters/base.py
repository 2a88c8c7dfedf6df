"""Base class of weighters, ``Weighter``, with its input ``LossValues`` and its output ``Weights``."""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..assigners import Assigner
from ..core.component import Component
from ..core.dual_weights import DualWeights
from ..core.errors import check_range
from ..core.samples import DenseSamples


class LossValues(NamedTuple):
    """Unweighted losses of a batch, with their graphs.

    Args:
        classification: Classification loss of each anchor, 0 for ignored anchors [A].
        box: Box loss of each positive, summed over coordinates; 0 if the criterion has no box loss [P].
        box_coordinates: Box loss as returned by the box loss, [P] or [P, 4].
        image_scales: Factor of the classification losses of each image: loss weight over normalizer [B].
        box_scales: Factor of the box losses of each image [B].
        has_box: Whether the criterion has a box loss. If not, weighters should add no loss terms for boxes.
    """

    classification: Tensor
    box: Tensor
    box_coordinates: Tensor
    image_scales: Tensor
    box_scales: Tensor
    has_box: bool = True

    def with_box_weights(self, weights: Tensor) -> "LossValues":
        """Multiply the box losses by weights [P]."""
        by_coordinate = weights.unsqueeze(1) if self.box_coordinates.dim() == 2 else weights
        return self._replace(box=self.box * weights, box_coordinates=self.box_coordinates * by_coordinate)


class Weights(NamedTuple):
    """Weights computed by a weighter; None leaves a loss unweighted.

    Args:
        classification: Weight of each anchor [A].
        box: Weight of each positive [P].
        extra: Additional loss terms by name, scaled so that their mean over processes is the term of the whole batch.
    """

    classification: Tensor | None = None
    box: Tensor | None = None
    extra: Mapping[str, Tensor] = {}


class Weighter(Component):
    """Base class of weighters: computes a loss weight for every anchor; the weights of several weighters multiply.

    Weighters are applied only in training. The losses of an evaluation are not weighted. A weighter without trained
    parameters should detach its weights.

    Args:
        warmup_steps: Number of training steps before the weighter has any effect, at least 0.
        fade_steps: Number of steps after the warm-up over which its effect grows linearly, at least 0. Weights and soft
            targets change from 1 to their values, additional loss terms from 0 to theirs.

    Attributes:
        weighs_classes: Whether the weighter implements :meth:`class_weights`.
        weighs_few: Whether the weights of most anchors are 0, so that only the gradient of few anchors is computed.
        reads_anchors: Whether the weighter reads the boxes of anchors, which some detectors do not have.
        assigner: Assigner that replaces the matcher of the detector, from the first step on; None for most weighters. A
            weighter with an assigner has ``assignment`` in ``exclusive``.

    Raises:
        UsageError: If a number of steps is negative.
    """

    weighs_classes: ClassVar[bool] = False
    weighs_few: ClassVar[bool] = False
    reads_anchors: ClassVar[bool] = False

    def __init__(self, warmup_steps: int = 0, fade_steps: int = 0) -> None:
        super().__init__()
        self.assigner: Assigner | None = None
        name = type(self).__name__
        self.warmup_steps = check_range(name, "warmup_steps", warmup_steps, 0)
        self.fade_steps = check_range(name, "fade_steps", fade_steps, 0)

    def soft_targets(self, samples: DenseSamples) -> Tensor:
        """Compute the target of the logit of each positive's class, in [0, 1] [P].

        Called only if the weighter has ``soft_targets`` in ``exclusive``.

        Args:
            samples: The batch.
        """
        raise NotImplementedError

    def class_weights(self, samples: DenseSamples) -> Tensor:
        """Compute the factor of each class's logits [C], or of its negative and its positive logits [2, C].

        Called before the loss, and only if the weighter has ``weighs_classes``.

        Args:
            samples: The batch.
        """
        raise NotImplementedError

    def dual_weights(self, samples: DenseSamples) -> DualWeights:
        """Compute separate weights of the positive and the negative term of the positives' logits, and the divisor.

        Called before the loss in training, and only if the weighter has ``weights`` in ``exclusive``.

        Args:
            samples: The batch, without dual weights.
        """
        raise NotImplementedError

    def forward(self, samples: DenseSamples, values: LossValues) -> Weights:
        """Compute the weights of a batch.

        Args:
            samples: The batch.
            values: The unweighted losses of the batch.
        """
        raise NotImplementedError

    def _share_at(self, step: int) -> float:
        """Return the strength of the weighter's effect at a training step, from 0 to 1."""
        if step < self.warmup_steps:
            return 0.0
        return min(1.0, (step - self.warmup_steps + 1) / (self.fade_steps + 1))

    def weighs_few_at(self, step: int) -> bool:
        """Whether the weights of most anchors are 0 at a training step: not while the effect fades in."""
        return self.weighs_few and self._share_at(step) == 1

    def scheduled(self, samples: DenseSamples, values: LossValues) -> Weights:
        """Compute the weights of a batch, scaled by warm-up and fade-in; empty in evaluation.

        The weighter is called during the warm-up too. So its parameters are always part of the graph, and all processes
        call the same collectives.

        Args:
            samples: The batch.
            values: The unweighted losses of the batch.
        """
        if not torch.is_grad_enabled():
            return Weights()
        weights: Weights = self(samples, values)
        strength = self._share_at(samples.step)
        if strength == 1:
            return weights
        return Weights(
            None if weights.classification is None else 1 + strength * (weights.classification - 1),
            None if weights.box is None else 1 + strength * (weights.box - 1),
            {name: strength * term for name, term in weights.extra.items()},
        )

    def scheduled_class_weights(self, samples: DenseSamples) -> Tensor:
        """Compute the class weights, scaled by warm-up and fade-in."""
        return 1 + self._share_at(samples.step) * (self.class_weights(samples) - 1)

    def scheduled_soft_targets(self, samples: DenseSamples) -> Tensor | None:
        """Compute the soft targets, scaled by warm-up and fade-in; None in evaluation."""
        if not torch.is_grad_enabled():
            return None
        return 1 + self._share_at(samples.step) * (self.soft_targets(samples) - 1)
