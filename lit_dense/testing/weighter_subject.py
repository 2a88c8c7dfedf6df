"""A weighter that is checked, in criteria with losses of each kind."""

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
"""A box loss of each kind, and what a weighter gets of it."""
LOSSES_IN_PROCESSES = ("focal", "ghm", "qfl")
HALF = (torch.float16, torch.bfloat16)
OF_ANCHORS, OF_BOXES, SOFT_TARGETS = "weights of anchors", "weights of boxes", "soft targets"


class WeighterSubject(Subject):
    """A weighter that is checked, between a classification and a box loss."""

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
        """The same weighter between other losses."""
        other = copy.copy(self)
        other.loss, other.box_loss = loss, box_loss
        return other

    def in_processes(self) -> dict[str, Subject]:
        """The weighter between losses that sum over processes, or look at boxes, and between such that do not."""
        found: dict[str, Subject] = {}
        for name in LOSSES_IN_PROCESSES:
            loss = LOSSES.build(name)
            accepted = loss.accepts_soft_targets or "soft_targets" not in self.part.exclusive
            if accepted and not loss.exclusive & self.part.exclusive:
                found |= {f"{name} and {box}": self.with_losses(name, box) for box in BOX_LOSSES}
        return found

    def build(self, spec: dict[str, Any]) -> Component:
        """A weighter from its spec."""
        return WEIGHTERS.build(spec)

    def criterion_with(self, part: Component) -> Criterion:
        """A criterion with the weighter alone."""
        return Criterion(self.loss, self.box_loss, [part])  # type: ignore[list-item]  # made of a weighter

    def part_of(self, criterion: Criterion) -> Component:
        """The weighter inside."""
        return criterion.weighters[0]  # type: ignore[return-value]  # as above

    def plain(self) -> Criterion:
        """A criterion with the same losses and without the weighter."""
        return Criterion(self.loss, self.box_loss)

    def scheduled_from(self, warmup_steps: int) -> Criterion:
        """A criterion whose weighter has the same arguments but begins to count at this step."""
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
        """What a criterion gives the weighter: samples, with soft targets if these are its own, and values."""
        if isinstance(part, Weighter) and "soft_targets" in part.exclusive:
            samples = samples.with_soft_targets(part.soft_targets(samples))
        witness = _Witness()
        Criterion(self.loss, self.box_loss, [witness])(samples)
        return samples, witness.seen

    def answers(self, part: Component, samples: DenseSamples) -> dict[str, Tensor]:
        """All that the weighter says of a batch, by name."""
        samples, values = self.asked(part, samples)
        answer: Weights = part(samples, values)
        given = {OF_ANCHORS: answer.classification, OF_BOXES: answer.box, SOFT_TARGETS: samples.soft_targets}
        extra = {f"extra term {name!r}": term for name, term in sorted(answer.extra.items())}
        return {name: tensor for name, tensor in given.items() if tensor is not None} | extra

    def values(self, part: Component, samples: DenseSamples) -> Tensor:
        """The numbers of all that the weighter says."""
        return torch.cat([samples.anchors.new_zeros(0), *(a.flatten() for a in self.answers(part, samples).values())])

    def own_terms(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All terms."""
        return dict(terms)

    def own_leaf(self, leaves: tuple[Tensor, Tensor]) -> Tensor:
        """The logits."""
        return leaves[0]


class _Witness(Weighter):
    """Leaves the losses as they are, and notes what it was told of them."""

    seen: LossValues

    def forward(self, samples: DenseSamples, values: LossValues) -> Weights:
        self.seen = values
        return Weights()
