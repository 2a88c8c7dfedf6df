"""The base of weighters."""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..assigners import Assigner
from ..core.component import Component
from ..core.errors import check_range
from ..core.samples import DenseSamples


class LossValues(NamedTuple):
    """What the losses said of a batch, with their graphs.

    Args:
        classification: Value of each anchor, 0 where it is ignored [A].
        box: Value of each positive, summed over coordinates; 0 where the criterion has no box loss [P].
        box_coordinates: As the box loss gave it [P] or [P, 4].
        image_scales: What the classification values of each image are multiplied by before they are added up [B].
        box_scales: The same for the box values [B].
        has_box: Whether the criterion has a box loss; without one a term about boxes would have nothing to weigh.
    """

    classification: Tensor
    box: Tensor
    box_coordinates: Tensor
    image_scales: Tensor
    box_scales: Tensor
    has_box: bool = True


class Weights(NamedTuple):
    """What a weighter answers; None leaves a loss as it is.

    Args:
        classification: Weight of each anchor [A].
        box: Weight of each positive [P].
        extra: Further loss terms by name, already scaled as one process's share of the batch.
    """

    classification: Tensor | None = None
    box: Tensor | None = None
    extra: Mapping[str, Tensor] = {}


class Weighter(Component):
    """Decides how much every anchor counts; several weighters multiply.

    A weighter is asked in training alone: the losses of an evaluation are not weighted. One whose weights are no
    function to be trained detaches them itself.

    Args:
        warmup_steps: Training steps before the weighter begins to count.
        fade_steps: Steps over which it then comes to count in full: weights go from 1 to what they are, soft targets
            from 1, extra terms from 0.

    Attributes:
        weighs_classes: Whether the weighter answers :meth:`class_weights`.
        assigner: Matches anchors and ground truths in place of the detector's matcher, from the first step on; such a
            weighter has ``assignment`` in ``exclusive``. None for most.

    Raises:
        UsageError: If a number of steps is negative.
    """

    weighs_classes: ClassVar[bool] = False

    def __init__(self, warmup_steps: int = 0, fade_steps: int = 0) -> None:
        super().__init__()
        self.assigner: Assigner | None = None
        name = type(self).__name__
        self.warmup_steps = check_range(name, "warmup_steps", warmup_steps, 0)
        self.fade_steps = check_range(name, "fade_steps", fade_steps, 0)

    def soft_targets(self, samples: DenseSamples) -> Tensor:
        """Target of each positive's own class in [0, 1] [P]; asked of a weighter with this in ``exclusive``."""
        raise NotImplementedError

    def class_weights(self, samples: DenseSamples) -> Tensor:
        """Factor of the elements of each class [C], or apart for elements whose target is 0 and 1 [2, C].

        Asked before the loss, only of a weighter that ``weighs_classes``.
        """
        raise NotImplementedError

    def forward(self, samples: DenseSamples, values: LossValues) -> Weights:
        """The weights of a batch.

        Args:
            samples: What is known of the batch.
            values: What the losses said of it.
        """
        raise NotImplementedError

    def _share_at(self, step: int) -> float:
        """How much the weighter counts at a training step, from 0 to 1."""
        if step < self.warmup_steps:
            return 0.0
        return min(1.0, (step - self.warmup_steps + 1) / (self.fade_steps + 1))

    def scheduled(self, samples: DenseSamples, values: LossValues) -> Weights:
        """The weights of a batch, as far as they count at its step; none in evaluation.

        A weighter is asked even where it does not count yet: its parameters stay part of the graph, and all processes
        make the same collectives.
        """
        if not torch.is_grad_enabled():
            return Weights()
        answer: Weights = self(samples, values)
        strength = self._share_at(samples.step)
        if strength == 1:
            return answer
        return Weights(
            None if answer.classification is None else 1 + strength * (answer.classification - 1),
            None if answer.box is None else 1 + strength * (answer.box - 1),
            {name: strength * term for name, term in answer.extra.items()},
        )

    def scheduled_class_weights(self, samples: DenseSamples) -> Tensor:
        """Class weights as far as they count at the batch's step."""
        return 1 + self._share_at(samples.step) * (self.class_weights(samples) - 1)

    def scheduled_soft_targets(self, samples: DenseSamples) -> Tensor | None:
        """Soft targets as far as they count at the batch's step; None in evaluation."""
        if not torch.is_grad_enabled():
            return None
        return 1 + self._share_at(samples.step) * (self.soft_targets(samples) - 1)
