"""The checks of a box loss."""

from collections.abc import Collection, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..box_losses import BOX_LOSSES, BoxLoss, BoxLossLike
from ..core.class_counts import ClassCounts
from ..core.component import Component
from ..core.samples import DenseSamples
from ..criterion import Criterion
from . import state, values
from .compare import slope_difference
from .processes import TwoProcesses, two_processes_agree
from .report import Check, Fault, Finding, run_checks
from .subject import LossSubject, gradients
from .values import WIDEN

BOXES = {
    "disjoint": ((0, 0, 10, 10), (1200, 700, 1300, 800)),
    "touching": ((0, 0, 10, 10), (10, 0, 20, 10)),
    "identical": ((5, 5, 60, 40), (5, 5, 60, 40)),
    "one within the other": ((20, 20, 30, 30), (0, 0, 100, 100)),
    "a tiny prediction": ((5, 5, 5 + 1e-3, 5 + 1e-3), (0, 0, 50, 50)),
    "tiny boxes": ((5, 5, 5 + 1e-3, 5 + 1e-3), (5, 5, 5 + 1e-3, 5 + 1e-3)),
    "a prediction without area": ((5, 5, 5, 5), (0, 0, 50, 50)),
    "an object without height": ((0, 0, 50, 50), (0, 10, 50, 10)),
    "a huge prediction": ((-1e6, -1e6, 1e6, 1e6), (0, 0, 50, 50)),
}
DELTAS = {f"{d:g}": ((d, d, d, d), (0.0, 0.0, 0.0, 0.0)) for d in (0.0, 1e-12, -1e-4, 1.0, -1e4, 1e6)}


def check_box_loss(
    loss: BoxLossLike,
    *,
    skip: Collection[str] = (),
    class_counts: ClassCounts | None = None,
    two_processes: TwoProcesses | None = None,
) -> None:
    """Hold a box loss against everything that lit_dense expects of one.

    Args:
        loss: A box loss, a name, or a dict with class_path and init_args. It is copied and stays what it was.
        skip: Names of checks that are not made, such as ``gradient`` for a loss with a detached factor.
        class_counts: What the loss is told of the training set, and how many classes there are; by default five
            invented classes.
        two_processes: ``two_processes(function, *args)`` returns the results of ``function(rank, *args)`` of two
            processes of one gloo group; by default two are started, which takes seconds.

    Raises:
        CheckFailure: If a check failed; the message lists what was expected, what was seen and what to do.
        UsageError: If the loss cannot be built, or a name to skip is unknown.

    Example:
        >>> check_box_loss("l1", skip=["two_processes"])
    """
    checks: dict[str, Check[BoxSubject]] = {
        "shape": values.shape,
        "gradient": gradient,
        "least_at_target": least_at_target,
        "extreme_boxes": extreme_boxes,
        "autocast": values.autocast,
        "hard_batches": values.hard_batches,
        "order_of_anchors": values.order_of_anchors,
        "inputs_untouched": values.inputs_untouched,
        "forward_keeps_state": state.forward_keeps_state,
        "evaluation_keeps_state": state.evaluation_keeps_state,
        "checkpoint": state.checkpoint,
        "copies": state.copies,
        "spec": state.spec,
        "no_host_sync": values.no_host_sync,
        "two_processes": partial(two_processes_agree, two_processes=two_processes),
    }
    subject = BoxSubject(BOX_LOSSES.build(loss), class_counts)
    subject.criterion()  # what it cannot do without is said as it is
    run_checks(subject.title, subject, checks, skip)


class BoxSubject(LossSubject):
    """A box loss that is checked."""

    kind, term = "box loss", "bbox_regression"

    def __init__(self, part: BoxLoss, class_counts: ClassCounts | None = None) -> None:
        super().__init__(part, class_counts)
        self.of_boxes = part.space == "boxes"

    def build(self, spec: dict[str, Any]) -> Component:
        """A box loss from its spec."""
        return BOX_LOSSES.build(spec)

    def criterion_with(self, part: Component) -> Criterion:
        """A criterion around the box loss."""
        return Criterion(box_loss=part)  # type: ignore[arg-type]  # the subject was made of a box loss

    def part_of(self, criterion: Criterion) -> Component:
        """The box loss inside."""
        assert criterion.box_loss is not None  # for the type checker: it was given
        return criterion.box_loss

    def target(self, samples: DenseSamples) -> Tensor:
        """What the positives should predict [P, 4]."""
        return samples.pos_gt_boxes if self.of_boxes else samples.pos_target_deltas

    def values(self, part: Component, samples: DenseSamples) -> Tensor:
        """One value per positive, or one per coordinate."""
        predicted = samples.pos_boxes if self.of_boxes else samples.pos_deltas
        answer: Tensor = part(predicted, self.target(samples), samples)
        return answer

    def by_anchor(self, values: Tensor, samples: DenseSamples) -> Tensor:
        """The values of positives at their anchors."""
        return values.new_zeros(len(samples.labels), *values.shape[1:]).index_put((samples.positives,), values)

    def right_shape(self, values: Tensor, samples: DenseSamples) -> bool:
        """Whether there is one value per positive, or one per coordinate."""
        return values.shape in (samples.pos_deltas.shape, samples.positives.shape)

    def own_leaf(self, leaves: tuple[Tensor, Tensor]) -> Tensor:
        """The deltas."""
        return leaves[1]


def gradient(subject: BoxSubject) -> Iterator[Finding]:
    """The gradient at predictions that are not far off is that of finite differences, in float64."""
    samples = subject.batch((2, 0), seed=2)
    target = subject.target(samples).double()
    generator = torch.Generator().manual_seed(0)
    off = torch.randn(target.shape, generator=generator, dtype=torch.float64) * (3.0 if subject.of_boxes else 0.5)
    for criterion, when in ((subject.criterion(), "in the first step"), (subject.trained(), "after two steps")):
        part = subject.part_of(criterion)
        if (found := part(target + off, target, samples).dtype) != torch.float64:
            yield Fault("float64 values of float64 predictions, for derivatives are compared there", f"{found}", WIDEN)
            return

        def total(x: Tensor, part: Component = part) -> Tensor:
            answer: Tensor = part(x, target, samples)
            return (answer.flatten() * torch.linspace(0.5, 1.5, answer.numel(), dtype=torch.float64)).sum()

        if seen := slope_difference(total, target + off):
            yield Fault(
                f"the gradient that finite differences of the values give ({when})",
                seen,
                'correct the backward pass; a loss that detaches a factor on purpose skips this: skip=["gradient"]',
            )


def least_at_target(subject: BoxSubject) -> Iterator[Finding]:
    """No prediction costs less than one that is equal to its target, and predictions that are far off cost more."""
    part, samples = subject.part_of(subject.trained()), subject.batch()
    target = subject.target(samples)
    scale = 1.0 if subject.of_boxes else 0.05

    def cost(predicted: Tensor) -> Tensor:
        answer: Tensor = part(predicted, target, samples)
        return answer.detach().flatten(1).sum(1) if answer.dim() == 2 else answer.detach()

    least = cost(target.clone())
    generator = torch.Generator().manual_seed(0)
    noises = [factor * scale * torch.randn(target.shape, generator=generator) for factor in (0.1, 1.0, 5.0)]
    for noise in noises:
        if (lower := cost(target + noise) < least - 1e-6).any():
            yield Fault(
                "the least value where a prediction is equal to its target",
                f"{int(lower.sum())} of {len(lower)} cost less when moved by about {float(noise.abs().mean()):.3g}",
                "look for a wrong sign, or for predicted and target in each other's place",
            )
    if not cost(target + noises[-1]).sum() > least.sum():
        yield Fault(
            "a higher value for predictions that are off", "the same value", "let the value depend on the prediction"
        )


def extreme_boxes(subject: BoxSubject) -> Iterator[Finding]:
    """Disjoint, identical, tiny, flat and huge boxes, or deltas from 0 to 1e6, give finite values and gradients."""
    part, samples = subject.part_of(subject.trained()), subject.batch()
    cases = BOXES if subject.of_boxes else DELTAS
    names = list(cases)
    pairs = torch.tensor([cases[names[i % len(names)]] for i in range(len(samples.positives))], dtype=torch.float32)
    predicted = pairs[:, 0].clone().requires_grad_()
    answer: Tensor = part(predicted.clone(), pairs[:, 1].clone(), samples)
    (slopes,) = gradients(answer.sum(), (predicted,))
    bad = ~(answer.detach().flatten(1).isfinite().all(1) if answer.dim() == 2 else answer.detach().isfinite())
    bad |= ~slopes.isfinite().all(1)
    if bad.any():
        found = dict.fromkeys(names[i % len(names)] for i in bad.nonzero().flatten().tolist())
        yield Fault(
            "finite values and derivatives",
            f"not finite for {'; '.join(found)}",
            "clamp what is divided by or rooted before, not after: x.clamp(min=1e-7)",
        )
