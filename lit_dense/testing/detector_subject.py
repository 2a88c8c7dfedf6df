"""What the checks of a detector's adapter work on: models, batches, steps and what comes of them."""

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
from ..detectors.base import Columns, Detections, DetectorAdapter

Targets = list[dict[str, Any]]
Make = Callable[[], nn.Module]
Step = Callable[[nn.Module, list[Tensor], Targets], Mapping[str, Tensor]]
Detect = Callable[[nn.Module, list[Tensor]], Detections]

TERMS = 1e-5
"""Largest difference of a loss term that counts as rounding, as a share of the term."""
GRADIENTS = 2e-5
"""The same of a gradient, as a share of the model's largest: biases before a normalisation have nothing but noise."""
COUNTS = (2, 0, 5)
"""Objects of each image of a batch."""


@dataclass
class Result:
    """What came of a training step.

    Args:
        terms: Its loss terms.
        gradients: Gradient of each parameter that got one.
        random_state: State of torch's generator afterwards.
    """

    terms: dict[str, Tensor]
    gradients: dict[str, Tensor]
    random_state: Tensor


@dataclass
class DetectorSubject:
    """An adapter that is checked.

    Args:
        adapter: Its class.
        make: Makes a model that contains the detector.
        step: Gives the loss terms of a training step.
        detect: Gives the detections of images.
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
        """What is checked, for the report."""
        return f"The adapter {self.adapter.__name__}"

    def model(self) -> nn.Module:
        """The model, in training, equal each time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.make().train()

    def attached(self, stage: str | None = None, **given: Any) -> nn.Module:
        """The model with the detector's own losses as criteria of all stages, or of one.

        Args:
            stage: The one stage.
            given: What is chosen of the criterion of that stage, or of the first.
        """
        model = self.model()
        adapter = find_detector(model)
        stages = adapter.stages if stage is None else (stage,)
        chosen = stage or stages[0]
        attach(adapter, {name: self.criterion(adapter, name, **(given if name == chosen else {})) for name in stages})
        return model

    def criterion(self, adapter: DetectorAdapter, stage: str, **given: Any) -> Criterion:
        """A criterion of a stage, the detector's own but for what is given; it knows class counts."""
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
        model = self.model()  # adapters refer to it weakly
        return find_detector(model).columns(self.stages[0])

    def batch(self, counts: Sequence[int] = COUNTS, border: bool = False) -> tuple[list[Tensor], Targets]:
        """Images and targets with so many objects each, as the detector numbers its classes.

        Args:
            counts: Objects of each image.
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
        """A training step from a state of torch's generator, without an optimiser and without some terms."""
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
        """What the model finds in the images of the batch."""
        model.eval()
        with torch.no_grad():
            return self.detect(model, self.batch()[0])

    @contextmanager
    def seen(self, model: nn.Module, stage: str) -> Iterator[list[DenseSamples]]:
        """Samples that the criterion of a stage is given meanwhile."""
        found: list[DenseSamples] = []
        criterion = find_detector(model).criteria[stage]
        handle = criterion.register_forward_pre_hook(lambda module, args: found.append(args[0]))
        try:
            yield found
        finally:
            handle.remove()


def unlike(result: Result, expected: Result, terms: float = TERMS, gradients: float = GRADIENTS) -> str | None:
    """How the terms and gradients of two steps differ, None if they do not.

    Args:
        result: What is.
        expected: What should be.
        terms: Largest difference of a term, as a share of it.
        gradients: Largest difference of a gradient, as a share of the largest of all.
    """
    if result.terms.keys() != expected.terms.keys():
        return f"the loss terms {sorted(result.terms)} in place of {sorted(expected.terms)}"
    for name, term in expected.terms.items():
        own = result.terms[name]
        if not torch.isclose(own.double(), term.double(), rtol=terms, atol=1e-9):
            return f"the loss term {name} = {float(own):.8g} in place of {float(term):.8g}"
    if result.gradients.keys() != expected.gradients.keys():
        which = sorted(result.gradients.keys() ^ expected.gradients.keys())
        return f"parameters that get a gradient in one of both alone: {', '.join(which[:5])}"
    largest = max((float(g.abs().max()) for g in expected.gradients.values() if g.numel()), default=0.0)
    for name, gradient in expected.gradients.items():
        off = float((result.gradients[name] - gradient).abs().max()) if gradient.numel() else 0.0
        if not off <= gradients * largest + 1e-9:
            return f"a gradient of {name} that is off by {off:.3g}, where the model's largest is {largest:.3g}"
    return None


def not_finite(result: Result) -> str | None:
    """Which terms and gradients are NaN or infinite, None if there are none."""
    numbers = {f"the loss term {name}": term for name, term in result.terms.items()}
    numbers |= {f"the gradient of {name}": gradient for name, gradient in result.gradients.items()}
    bad = [name for name, number in numbers.items() if not number.isfinite().all()]
    return f"not finite: {', '.join(bad[:5])}" if bad else None
