"""What the checks of all kinds of parts have in common: a part, how it is called, and batches for it."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..core.class_counts import ClassCounts
from ..core.component import Component
from ..core.samples import DenseSamples
from ..core.step_context import StepContext
from ..criterion import Criterion
from .batches import INVENTED_COUNTS, make_batch, with_leaves


class Subject(ABC):
    """A part that is checked; it is copied, so that the caller's stays what it was.

    Args:
        part: The part.
        class_counts: What it is told of the training set, and how many classes there are; by default invented.

    Attributes:
        kind: What such parts are called.
        extra_logits: Columns of the logits beyond one per class.
    """

    kind: str
    extra_logits: int = 0

    def __init__(self, part: Component, class_counts: ClassCounts | None = None) -> None:
        self.part = copy.deepcopy(part)
        self.counts = INVENTED_COUNTS if class_counts is None else class_counts
        self.num_classes = len(self.counts.images)

    @property
    def title(self) -> str:
        """What is checked, for the report."""
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.part.spec["init_args"].items())
        return f"The {self.kind} {type(self.part).__name__}({arguments})"

    @abstractmethod
    def build(self, spec: dict[str, Any]) -> Component:
        """A part from its spec, as a checkpoint makes it."""

    @abstractmethod
    def criterion_with(self, part: Component) -> Criterion:
        """A criterion around a part; it knows no class counts."""

    @abstractmethod
    def part_of(self, criterion: Criterion) -> Component:
        """The part inside a criterion."""

    @abstractmethod
    def values(self, part: Component, samples: DenseSamples) -> Tensor:
        """What the part says of samples."""

    @abstractmethod
    def own_terms(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of a criterion's loss terms that the part contributes to, each []."""

    @abstractmethod
    def own_leaf(self, leaves: tuple[Tensor, Tensor]) -> Tensor:
        """Of the leaves that logits and deltas are computed from, the one that must get a gradient."""

    def criterion(self) -> Criterion:
        """A criterion around a copy of the part as it was given, ready to be trained."""
        criterion = self.criterion_with(copy.deepcopy(self.part))
        criterion.receive_class_counts(self.counts)
        criterion.prepare(self.num_classes)
        criterion.check_ready()
        return criterion

    def trained(self, steps: int = 2) -> Criterion:
        """A criterion that has seen so many batches, so that its state is not the first."""
        criterion = self.criterion()
        for seed in range(steps):
            self.step(criterion, self.batch(seed=100 + seed))
        return criterion

    def step(self, criterion: Criterion, samples: DenseSamples) -> Tensor:
        """The sum of the part's terms of a batch; a training step where gradients are enabled."""
        context = replace(samples.context or StepContext(), step=criterion.step, epoch=criterion.epoch)
        with_step = replace(samples, context=context)
        terms = criterion(with_leaves(with_step)[0] if torch.is_grad_enabled() else with_step)
        return torch.stack(list(self.own_terms(terms).values())).sum().detach()

    def in_processes(self) -> dict[str, "Subject"]:
        """The subjects that are tried in two processes, and what to call them."""
        return {"": self}

    def batch(self, objects: Sequence[int] = (3, 0, 5, 0), seed: int = 0, **how: Any) -> DenseSamples:
        """A batch with this part's columns; see :func:`~lit_dense.testing.batches.make_batch`."""
        return make_batch(self.num_classes, self.extra_logits, objects, seed, class_counts=self.counts, **how)

    def values_and_gradients(self, part: Component, samples: DenseSamples) -> tuple[Tensor, Tensor]:
        """Values of samples, and the gradient of their sum at the leaf, 0 where it does not reach it."""
        samples, leaves = with_leaves(samples)
        values = self.values(part, samples)
        return values.detach(), gradients(values.sum(), (self.own_leaf(leaves),))[0]


class LossSubject(Subject):
    """A loss that is checked.

    Attributes:
        term: The loss term that the loss contributes to.
    """

    term: str

    @abstractmethod
    def by_anchor(self, values: Tensor, samples: DenseSamples) -> Tensor:
        """Values, in the order of anchors or of positives, as one row per anchor; 0 for others [A] or [A, 4]."""

    @abstractmethod
    def right_shape(self, values: Tensor, samples: DenseSamples) -> bool:
        """Whether values have the shape that such a part gives."""

    def own_terms(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The one term."""
        return {self.term: terms[self.term]}


def gradients(total: Tensor, leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The gradient of a number at each leaf, 0 where it does not depend on it."""
    if not total.requires_grad:
        return tuple(torch.zeros_like(leaf) for leaf in leaves)
    found = torch.autograd.grad(total, leaves, allow_unused=True, retain_graph=True)  # samples share a graph
    return tuple(torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves, strict=True))
