"""The object under test in checks of an adapter: models, batches, training steps and their results."""

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..core.class_counts import ClassCounts
from ..core.samples import DenseSamples
from ..criterion import Criterion, CriterionArgs
from ..detectors.attach import attach, build_criterion, find_detector
from ..detectors.base import Detections, DetectorAdapter
from ..detectors.columns import Columns

Targets = list[dict[str, Any]]
Make = Callable[[], nn.Module]
Step = Callable[[nn.Module, list[Tensor], Targets], Mapping[str, Tensor]]
Detect = Callable[[nn.Module, list[Tensor]], Detections]

TERMS = 1e-5
"""Largest rounding error of a loss term, as a share of the term."""
GRADIENTS = 2e-5
"""Largest rounding error of a gradient, as a share of the model's largest; some gradients of biases are only noise."""
COUNTS = (2, 0, 5)
"""Number of objects of each image of a batch."""


@dataclass
class Result:
    """The result of a training step.

    Args:
        terms: The loss terms.
        gradients: The gradients of the parameters that have one.
        random_state: State of torch's generator after the step.
    """

    terms: dict[str, Tensor]
    gradients: dict[str, Tensor]
    random_state: Tensor


@dataclass
class DetectorSubject:
    """An adapter under test.

    Args:
        adapter: The adapter's class.
        make: Returns a model that contains the detector.
        step: Returns the loss terms of a training step.
        detect: Returns the detections of images.
        image_size: Height and width of the images.
        of_process: Terms that each process computes from its own images.
    """

    adapter: type[DetectorAdapter]
    make: Make
    step: Step
    detect: Detect
    image_size: int
    of_process: Collection[str] = ()

    @property
    def title(self) -> str:
        """The title of the report."""
        return f"The adapter {self.adapter.__name__}"

    def model(self) -> nn.Module:
        """Make the model, in training mode; equal on each call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.make().train()

    def attached(self, stage: str | None = None, **given: Any) -> nn.Module:
        """Make the model and attach criteria with the detector's own losses, to all stages or to one.

        Args:
            stage: The stage to attach; by default all stages.
            given: Parts of the criterion of that stage, by default of the first stage.
        """
        model = self.model()
        adapter = find_detector(model)
        stages = adapter.stages if stage is None else (stage,)
        chosen = stage or stages[0]
        attach(adapter, {name: self.criterion(adapter, name, **(given if name == chosen else {})) for name in stages})
        return model

    def criterion(self, adapter: DetectorAdapter, stage: str, **given: Any) -> Criterion:
        """Build the criterion of a stage from given parts, else the detector's own; it has class counts."""
        classes = adapter.columns(stage).classes
        instances = torch.arange(1, max(2, classes - 1))  # fewer than the head has: losses may take columns
        return build_criterion(
            adapter.defaults(stage),
            cast(CriterionArgs, given),
            ClassCounts(100 * instances, 10 * instances, num_images=1000),
        )

    @property
    def stages(self) -> tuple[str, ...]:
        """The detector's stages."""
        return self.adapter.stages

    @cached_property
    def columns(self) -> Columns:
        """The columns of the first stage."""
        model = self.model()  # a variable, because adapters keep only a weak reference
        return find_detector(model).columns(self.stages[0])

    def batch(self, counts: Sequence[int] = COUNTS, border: bool = False) -> tuple[list[Tensor], Targets]:
        """Make random images and targets, with labels as the detector numbers its classes.

        Args:
            counts: Number of objects of each image.
            border: Whether objects touch the borders of the image.
        """
        generator = torch.Generator().manual_seed(1)
        columns = self.columns
        images, targets = [], []
        for index, count in enumerate(counts):
            images.append(torch.rand(3, self.image_size, self.image_size, generator=generator))
            low = 0.6 * torch.rand(count, 2, generator=generator)
            high = (low + 0.12 + 0.3 * torch.rand(count, 2, generator=generator)).clamp(max=1)
            if border:
                low, high = low * (low > 0.3), high + (1 - high) * (high > 0.6)
            labels = torch.randint(max(1, columns.classes - 2), (count,), generator=generator)
            targets.append(
                {
                    "boxes": torch.cat([low, high], 1) * self.image_size,
                    "labels": labels + columns.first_label,
                    "image_id": index + 1,
                    "weight": 0.5 + torch.rand(count, generator=generator),
                }
            )
        return images, targets

    def run(
        self,
        model: nn.Module,
        batch: tuple[list[Tensor], Targets],
        seed: int = 0,
        without: Collection[str] = (),
    ) -> Result:
        """Run a training step with a seed, without an optimiser step; the terms in ``without`` are left out."""
        images, targets = copy.deepcopy(batch)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model.zero_grad()
            terms = {name: t for name, t in self.step(model, images, targets).items() if name not in without}
            torch.stack([term.float() for term in terms.values()]).sum().backward()
            state = torch.get_rng_state()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        return Result({name: term.detach() for name, term in terms.items()}, gradients, state)

    def detections(self, model: nn.Module) -> Detections:
        """Return the model's detections in the images of the batch."""
        model.eval()
        with torch.no_grad():
            return self.detect(model, self.batch()[0])

    @contextmanager
    def seen(self, model: nn.Module, stage: str) -> Iterator[list[DenseSamples]]:
        """Record the samples that the criterion of a stage receives inside the context."""
        samples: list[DenseSamples] = []
        criterion = find_detector(model).criteria[stage]
        handle = criterion.register_forward_pre_hook(lambda module, args: samples.append(args[0]))
        try:
            yield samples
        finally:
            handle.remove()


def unlike(result: Result, expected: Result, terms: float = TERMS, gradients: float = GRADIENTS) -> str | None:
    """Describe the difference of the terms and gradients of two steps; None if they agree.

    Args:
        result: The actual result.
        expected: The expected result.
        terms: Largest accepted difference of a term, as a share of the term.
        gradients: Largest accepted difference of a gradient, as a share of the largest gradient of all parameters.
    """
    if result.terms.keys() != expected.terms.keys():
        return f"the loss terms {sorted(result.terms)} instead of {sorted(expected.terms)}"
    for name, term in expected.terms.items():
        own = result.terms[name]
        if not torch.isclose(own.double(), term.double(), rtol=terms, atol=1e-9):
            return f"the loss term {name} = {float(own):.8g} instead of {float(term):.8g}"
    if result.gradients.keys() != expected.gradients.keys():
        which = sorted(result.gradients.keys() ^ expected.gradients.keys())
        return f"parameters that get a gradient in only one of the two steps: {', '.join(which[:5])}"
    largest = max((float(g.abs().max()) for g in expected.gradients.values() if g.numel()), default=0.0)
    for name, gradient in expected.gradients.items():
        off = float((result.gradients[name] - gradient).abs().max()) if gradient.numel() else 0.0
        if not off <= gradients * largest + 1e-9:
            return f"a gradient of {name} that is off by {off:.3g}; the model's largest gradient is {largest:.3g}"
    return None


def not_finite(result: Result) -> str | None:
    """List the terms and gradients that are NaN or infinite; None if there are none."""
    numbers = {f"the loss term {name}": term for name, term in result.terms.items()}
    numbers |= {f"the gradient of {name}": gradient for name, gradient in result.gradients.items()}
    bad = [name for name, number in numbers.items() if not number.isfinite().all()]
    return f"not finite: {', '.join(bad[:5])}" if bad else None
