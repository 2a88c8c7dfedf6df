"""The checks of a box loss."""

from collections.abc import Collection, Iterator, Sequence
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
from .check_runner import Check, Fault, Finding, run_checks
from .processes import TwoProcesses, two_processes_agree
from .subject import LossSubject, gradients
from .tensor_differences import slope_difference
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
    """Check that a box loss meets all requirements of lit_dense.

    Args:
        loss: A box loss, a name, or a dict with class_path and init_args. It is copied and not changed.
        skip: Names of checks to skip, such as ``gradient`` for a loss with a detached factor.
        class_counts: Class counts of the training set, which also give the number of classes; by default those of five
            artificial classes.
        two_processes: A function with the signature ``two_processes(function, *args)`` that returns the results of
            ``function(rank, *args)`` on two processes of one gloo group; by default two processes are started, which
            takes seconds.

    Raises:
        CheckFailure: If a check failed; the message lists the expected and the seen result, and a remedy.
        UsageError: If the loss cannot be built, or the name of a check to skip is unknown.

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
    subject.criterion()  # raises the loss's own errors, such as missing class counts, before the checks
    run_checks(subject.title, subject, checks, skip)


class BoxSubject(LossSubject):
    """A box loss under test."""

    kind, term = "box loss", "bbox_regression"

    def __init__(self, part: BoxLoss, class_counts: ClassCounts | None = None) -> None:
        super().__init__(part, class_counts)
        self.of_boxes = part.space == "boxes"

    def batch(self, objects: Sequence[int] = (3, 0, 5, 0), seed: int = 0, **how: Any) -> DenseSamples:
        """Make a batch with the box outputs that the loss needs."""
        return super().batch(objects, seed, box_loss=self._box_loss, **how)

    @property
    def _box_loss(self) -> BoxLoss:
        return self.part  # type: ignore[return-value]  # the subject was made of a box loss

    def hit(self, target: Tensor) -> Tensor:
        """Return predictions equal to targets [P, 4]: the same, or outputs that decode to it."""
        coder = self._box_loss.box_coder
        return target.clone() if coder is None else coder.outputs_of(target)

    def build(self, spec: dict[str, Any]) -> Component:
        """Build a box loss from its spec."""
        return BOX_LOSSES.build(spec)

    def criterion_with(self, part: Component) -> Criterion:
        """Return a criterion with the box loss."""
        return Criterion(box_loss=part)  # type: ignore[arg-type]  # the subject was made of a box loss

    def part_of(self, criterion: Criterion) -> Component:
        """Return the criterion's box loss."""
        assert criterion.box_loss is not None  # for the type checker: the criterion was built with it
        return criterion.box_loss

    def target(self, samples: DenseSamples) -> Tensor:
        """Return the targets of the positives: boxes or deltas [P, 4]."""
        return samples.pos_gt_boxes if self.of_boxes else samples.pos_target_deltas

    def values(self, part: Component, samples: DenseSamples) -> Tensor:
        """Return one value per positive, or one per coordinate."""
        predicted = samples.pos_boxes if self.of_boxes else samples.pos_deltas
        losses: Tensor = part(predicted, self.target(samples), samples)
        return losses

    def by_anchor(self, values: Tensor, samples: DenseSamples) -> Tensor:
        """Scatter the values of positives to their anchors."""
        return values.new_zeros(len(samples.labels), *values.shape[1:]).index_put((samples.positives,), values)

    def right_shape(self, values: Tensor, samples: DenseSamples) -> bool:
        """Return whether there is one value per positive, or one per coordinate."""
        return values.shape in (samples.pos_deltas.shape, samples.positives.shape)

    def own_leaf(self, leaves: tuple[Tensor, Tensor]) -> Tensor:
        """Return the deltas."""
        return leaves[1]


def gradient(subject: BoxSubject) -> Iterator[Finding]:
    """Near the target, the gradient equals finite differences in float64."""
    samples = subject.batch((2, 0), seed=2)
    target = subject.target(samples).double()
    hit = subject.hit(target)
    generator = torch.Generator().manual_seed(0)
    off = torch.randn(hit.shape, generator=generator, dtype=torch.float64) * (3.0 if subject.of_boxes else 0.5)
    for criterion, when in ((subject.criterion(), "in the first step"), (subject.trained(), "after two steps")):
        part = subject.part_of(criterion)
        if (found := part(hit + off, target, samples).dtype) != torch.float64:
            yield Fault("float64 values of float64 predictions, for derivatives are compared there", f"{found}", WIDEN)
            return

        def total(x: Tensor, part: Component = part) -> Tensor:
            answer: Tensor = part(x, target, samples)
            return (answer.flatten() * torch.linspace(0.5, 1.5, answer.numel(), dtype=torch.float64)).sum()

        if seen := slope_difference(total, hit + off):
            yield Fault(
                f"the gradient that finite differences of the values give ({when})",
                seen,
                'correct the backward pass; a loss that detaches a factor on purpose skips this: skip=["gradient"]',
            )


def least_at_target(subject: BoxSubject) -> Iterator[Finding]:
    """The loss is smallest where the prediction equals its target, and larger for predictions far off."""
    part, samples = subject.part_of(subject.trained()), subject.batch()
    target = subject.target(samples)
    hit = subject.hit(target)
    scale = 1.0 if subject.of_boxes else 0.05

    def cost(predicted: Tensor) -> Tensor:
        losses: Tensor = part(predicted, target, samples)
        return losses.detach().flatten(1).sum(1) if losses.dim() == 2 else losses.detach()

    least = cost(hit.clone())
    generator = torch.Generator().manual_seed(0)
    noises = [factor * scale * torch.randn(hit.shape, generator=generator) for factor in (0.1, 1.0, 5.0)]
    for noise in noises:
        if (lower := cost(hit + noise) < least - 1e-6).any():
            yield Fault(
                "the smallest value where a prediction is equal to its target",
                f"{int(lower.sum())} of {len(lower)} are smaller when moved by about {float(noise.abs().mean()):.3g}",
                "look for a wrong sign, or for swapped arguments predicted and target",
            )
    if not cost(hit + noises[-1]).sum() > least.sum():
        yield Fault(
            "a higher value for predictions that are off", "the same value", "let the value depend on the prediction"
        )


def extreme_boxes(subject: BoxSubject) -> Iterator[Finding]:
    """Disjoint, identical, tiny, flat and huge boxes, or deltas from 0 to 1e6, give finite values and gradients."""
    part, samples = subject.part_of(subject.trained()), subject.batch()
    cases = BOXES if subject.of_boxes else DELTAS
    names = list(cases)
    pairs = torch.tensor([cases[names[i % len(names)]] for i in range(len(samples.positives))], dtype=torch.float32)
    width = subject.hit(pairs[:, 1]).shape[1]
    sides = pairs[:, 0] if width == 4 else pairs[:, 0, :1] * torch.linspace(-1, 1, width)
    predicted = sides.clone().requires_grad_()
    losses: Tensor = part(predicted.clone(), pairs[:, 1].clone(), samples)
    (slopes,) = gradients(losses.sum(), (predicted,))
    bad = ~(losses.detach().flatten(1).isfinite().all(1) if losses.dim() == 2 else losses.detach().isfinite())
    bad |= ~slopes.isfinite().all(1)
    if bad.any():
        cases_of_bad = dict.fromkeys(names[i % len(names)] for i in bad.nonzero().flatten().tolist())
        yield Fault(
            "finite values and derivatives",
            f"not finite for {'; '.join(cases_of_bad)}",
            "clamp divisors and arguments of square roots before the operation, not after: x.clamp(min=1e-7)",
        )
