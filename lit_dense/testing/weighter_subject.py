"""The object under test in checks of a weighter, with losses of each kind."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..box_losses import BoxLossLike
from ..core.class_counts import ClassCounts
from ..core.component import Component
from ..core.samples import DenseSamples
from ..criterion import Criterion
from ..losses import LOSSES, LossLike
from ..weighters import WEIGHTERS, LossValues, Weighter, Weights
from .subject import Subject

BOX_LOSSES = {"l1": "values of shape [P, 4]", "giou": "values of shape [P]"}
"""A box loss of each kind, and the values that a weighter gets from it."""
LOSSES_IN_PROCESSES = ("focal", "ghm", "qfl")
HALF = (torch.float16, torch.bfloat16)
OF_ANCHORS, OF_BOXES, SOFT_TARGETS = "weights of anchors", "weights of boxes", "soft targets"
DUAL = ("factors of positive terms", "factors of negative terms")


class WeighterSubject(Subject):
    """A weighter under test, with a classification loss and a box loss."""

    kind = "weighter"
    loss: LossLike = "focal"
    box_loss: BoxLossLike = "l1"

    def __init__(self, part: Weighter, class_counts: ClassCounts | None = None) -> None:
        super().__init__(part, class_counts)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.part.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))

    def with_losses(self, loss: LossLike, box_loss: BoxLossLike) -> "WeighterSubject":
        """Return the same weighter with other losses."""
        other = copy.copy(self)
        other.loss, other.box_loss = loss, box_loss
        return other

    def in_processes(self) -> dict[str, Subject]:
        """Return the weighter with losses that sum over processes or use boxes, and with losses that do not."""
        subjects: dict[str, Subject] = {}
        for name in LOSSES_IN_PROCESSES:
            loss = LOSSES.build(name)
            accepted = loss.accepts_soft_targets or "soft_targets" not in self.part.exclusive
            accepted = accepted and (loss.accepts_dual_weights or "weights" not in self.part.exclusive)
            if accepted and not loss.exclusive & self.part.exclusive:
                subjects |= {f"{name} and {box}": self.with_losses(name, box) for box in BOX_LOSSES}
        return subjects

    def build(self, spec: dict[str, Any]) -> Component:
        """Build a weighter from its spec."""
        return WEIGHTERS.build(spec)

    def criterion_with(self, part: Component) -> Criterion:
        """Return a criterion with the weighter as its only one."""
        return Criterion(self.loss, self.box_loss, [part])  # type: ignore[list-item]  # made of a weighter

    def part_of(self, criterion: Criterion) -> Component:
        """Return the criterion's weighter."""
        return criterion.weighters[0]  # type: ignore[return-value]  # as above

    def plain(self) -> Criterion:
        """Return a criterion with the same losses and without the weighter."""
        return Criterion(self.loss, self.box_loss)

    def scheduled_from(self, warmup_steps: int) -> Criterion:
        """Return a criterion with a weighter of the same arguments and another number of warm-up steps."""
        described = self.part.spec
        described["init_args"] |= {"warmup_steps": warmup_steps}
        if not WEIGHTERS.unknown_args(type(self.part), ["fade_steps"]):
            described["init_args"] |= {"fade_steps": 0}
        part = self.build(described)
        with torch.no_grad():
            for new, old in zip(part.parameters(), self.part.parameters(), strict=True):
                new.copy_(old)
        criterion = self.criterion_with(part)
        criterion.receive_class_counts(self.counts)
        criterion.prepare(self.num_classes)
        return criterion

    def asked(self, part: Component, samples: DenseSamples) -> tuple[DenseSamples, LossValues]:
        """Return the weighter's inputs in a criterion: samples, with its soft targets or dual weights, and losses."""
        if isinstance(part, Weighter) and "soft_targets" in part.exclusive:
            samples = samples.with_soft_targets(part.soft_targets(samples))
        if isinstance(part, Weighter) and "weights" in part.exclusive:
            samples = samples.with_dual_weights(part.dual_weights(samples))
        witness = _Witness()
        Criterion(self.loss, self.box_loss, [witness])(samples)
        return samples, witness.seen

    def answers(self, part: Component, samples: DenseSamples) -> dict[str, Tensor]:
        """Return all outputs of the weighter for a batch, by name."""
        return self.answers_of(part, *self.asked(part, samples))

    def answers_of(self, part: Component, samples: DenseSamples, values: LossValues) -> dict[str, Tensor]:
        """Return all outputs of the weighter for its inputs in a criterion, by name."""
        answer: Weights = part(samples, values)
        given = {OF_ANCHORS: answer.classification, OF_BOXES: answer.box, SOFT_TARGETS: samples.soft_targets}
        if (dual := samples.dual_weights) is not None:
            given |= dict(zip(DUAL, (dual.positive, dual.negative), strict=True))
        extra = {f"extra term {name!r}": term for name, term in sorted(answer.extra.items())}
        return {name: tensor for name, tensor in given.items() if tensor is not None} | extra

    def values(self, part: Component, samples: DenseSamples) -> Tensor:
        """Return all outputs of the weighter as one vector."""
        return torch.cat([samples.anchors.new_zeros(0), *(a.flatten() for a in self.answers(part, samples).values())])

    def own_terms(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Select all terms."""
        return dict(terms)

    def own_leaf(self, leaves: tuple[Tensor, Tensor]) -> Tensor:
        """Return the logits."""
        return leaves[0]


class _Witness(Weighter):
    """A weighter that records its loss values and changes nothing."""

    seen: LossValues

    def forward(self, samples: DenseSamples, values: LossValues) -> Weights:
        self.seen = values
        return Weights()
