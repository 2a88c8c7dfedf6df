"""The object under test in checks of parts: the part, its criterion, and batches for it."""

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
    """A copy of the part under test.

    Args:
        part: The part; the caller's object is not changed.
        class_counts: Class counts of the training set, which also give the number of classes; by default artificial.

    Attributes:
        kind: Name of the kind of part, for messages.
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
        """The title of the report."""
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.part.spec["init_args"].items())
        return f"The {self.kind} {type(self.part).__name__}({arguments})"

    @abstractmethod
    def build(self, spec: dict[str, Any]) -> Component:
        """Build a part from its spec, as when a checkpoint is loaded."""

    @abstractmethod
    def criterion_with(self, part: Component) -> Criterion:
        """Return a criterion with a part, without class counts."""

    @abstractmethod
    def part_of(self, criterion: Criterion) -> Component:
        """Return the part of a criterion."""

    @abstractmethod
    def values(self, part: Component, samples: DenseSamples) -> Tensor:
        """Return the part's output for samples."""

    @abstractmethod
    def own_terms(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Select the loss terms of a criterion that the part contributes to, each []."""

    @abstractmethod
    def own_leaf(self, leaves: tuple[Tensor, Tensor]) -> Tensor:
        """Select the leaf that must get a gradient, that of the logits or that of the deltas."""

    def criterion(self) -> Criterion:
        """Return a criterion with a copy of the given part, ready for training."""
        criterion = self.criterion_with(copy.deepcopy(self.part))
        criterion.receive_class_counts(self.counts)
        criterion.prepare(self.num_classes)
        criterion.check_ready()
        return criterion

    def trained(self, steps: int = 2) -> Criterion:
        """Return a criterion after some training steps, so that its state differs from the initial one."""
        criterion = self.criterion()
        for seed in range(steps):
            self.step(criterion, self.batch(seed=100 + seed))
        return criterion

    def step(self, criterion: Criterion, samples: DenseSamples) -> Tensor:
        """Return the sum of the part's terms of a batch; with gradients enabled, this is a training step."""
        context = replace(samples.context or StepContext(), step=criterion.step, epoch=criterion.epoch)
        with_step = replace(samples, context=context)
        terms = criterion(with_leaves(with_step)[0] if torch.is_grad_enabled() else with_step)
        return torch.stack(list(self.own_terms(terms).values())).sum().detach()

    def in_processes(self) -> dict[str, "Subject"]:
        """Return the subjects to check on two processes, by name."""
        return {"": self}

    def batch(self, objects: Sequence[int] = (3, 0, 5, 0), seed: int = 0, **how: Any) -> DenseSamples:
        """Make a batch with this part's columns; see :func:`~lit_dense.testing.batches.make_batch`."""
        return make_batch(self.num_classes, self.extra_logits, objects, seed, class_counts=self.counts, **how)

    def values_and_gradients(self, part: Component, samples: DenseSamples) -> tuple[Tensor, Tensor]:
        """Return the values of samples, and the gradient of their sum at the leaf; 0 if it is not connected."""
        samples, leaves = with_leaves(samples)
        values = self.values(part, samples)
        return values.detach(), gradients(values.sum(), (self.own_leaf(leaves),))[0]


class LossSubject(Subject):
    """A loss under test.

    Attributes:
        term: Name of the loss term that the loss computes.
    """

    term: str

    @abstractmethod
    def by_anchor(self, values: Tensor, samples: DenseSamples) -> Tensor:
        """Convert values of anchors or of positives to one row per anchor, 0 for other anchors [A] or [A, 4]."""

    @abstractmethod
    def right_shape(self, values: Tensor, samples: DenseSamples) -> bool:
        """Return whether values have the required shape."""

    def own_terms(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Select the loss's term."""
        return {self.term: terms[self.term]}


def gradients(total: Tensor, leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the gradient of a number at each leaf; 0 if it does not depend on the leaf."""
    if not total.requires_grad:
        return tuple(torch.zeros_like(leaf) for leaf in leaves)
    slopes = torch.autograd.grad(total, leaves, allow_unused=True, retain_graph=True)  # samples share a graph
    return tuple(torch.zeros_like(leaf) if g is None else g for g, leaf in zip(slopes, leaves, strict=True))
