"""The checks of a classification loss."""

from collections.abc import Collection, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..core.class_counts import ClassCounts
from ..core.component import Component
from ..core.samples import IGNORED, DenseSamples
from ..criterion import Criterion
from ..losses import LOSSES, DenseLoss, LossLike
from . import batches, state, values
from .batches import with_leaves, with_logits
from .check_runner import Check, Fault, Finding, run_checks
from .processes import TwoProcesses, two_processes_agree
from .subject import LossSubject, gradients
from .tensor_differences import difference, slope_difference
from .values import ROUNDING, WIDEN

HALF = {torch.float16: 2**-11, torch.bfloat16: 2**-8}
"""Half-precision dtypes and their relative rounding error."""


def check_classification_loss(
    loss: LossLike,
    *,
    skip: Collection[str] = (),
    class_counts: ClassCounts | None = None,
    two_processes: TwoProcesses | None = None,
) -> None:
    """Check that a classification loss meets all requirements of lit_dense.

    Args:
        loss: A loss, a name, or a dict with class_path and init_args. It is copied and not changed.
        skip: Names of checks to skip, such as ``gradient`` for a loss with a detached factor.
        class_counts: Class counts of the training set, which also give the number of classes; by default those of five
            artificial classes, one of them without objects.
        two_processes: A function with the signature ``two_processes(function, *args)`` that returns the results of
            ``function(rank, *args)`` on two processes of one gloo group; by default two processes are started, which
            takes seconds.

    Raises:
        CheckFailure: If a check failed; the message lists the expected and the seen result, and a remedy.
        UsageError: If the loss cannot be built, or the name of a check to skip is unknown.

    Example:
        >>> check_classification_loss("focal", skip=["two_processes", "compiled"])
    """
    checks: dict[str, Check[ClassificationSubject]] = {
        "shape": values.shape,
        "gradient": gradient,
        "extreme_logits": extreme_logits,
        "half_precision": half_precision,
        "autocast": values.autocast,
        "hard_batches": values.hard_batches,
        "ignored_anchors": ignored_anchors,
        "order_of_anchors": values.order_of_anchors,
        "inputs_untouched": values.inputs_untouched,
        "forward_keeps_state": state.forward_keeps_state,
        "evaluation_keeps_state": state.evaluation_keeps_state,
        "checkpoint": state.checkpoint,
        "copies": state.copies,
        "spec": state.spec,
        "no_host_sync": values.no_host_sync,
        "compiled": values.compiled,
        "two_processes": partial(two_processes_agree, two_processes=two_processes),
    }
    subject = ClassificationSubject(LOSSES.build(loss), class_counts)
    subject.criterion()  # raises the loss's own errors, such as missing class counts, before the checks
    run_checks(subject.title, subject, checks, skip)


class ClassificationSubject(LossSubject):
    """A classification loss under test."""

    kind, term = "classification loss", "classification"

    def __init__(self, part: DenseLoss, class_counts: ClassCounts | None = None) -> None:
        super().__init__(part, class_counts)
        self.extra_logits = part.extra_logits

    def build(self, spec: dict[str, Any]) -> Component:
        """Build a loss from its spec."""
        return LOSSES.build(spec)

    def criterion_with(self, part: Component) -> Criterion:
        """Return a criterion with the loss."""
        return Criterion(part)  # type: ignore[arg-type]  # the subject was made of a loss

    def part_of(self, criterion: Criterion) -> Component:
        """Return the criterion's loss."""
        return criterion.loss

    def values(self, part: Component, samples: DenseSamples) -> Tensor:
        """Return one value per anchor."""
        losses: Tensor = part(samples.logits, samples.labels, samples)
        return losses

    def by_anchor(self, values: Tensor, samples: DenseSamples) -> Tensor:
        """Return the values with 0 for ignored anchors."""
        return values.masked_fill(~samples.valid, 0.0)

    def right_shape(self, values: Tensor, samples: DenseSamples) -> bool:
        """Return whether there is one value per anchor."""
        return values.shape == samples.labels.shape

    def own_leaf(self, leaves: tuple[Tensor, Tensor]) -> Tensor:
        """Return the logits."""
        return leaves[0]


def gradient(subject: LossSubject) -> Iterator[Finding]:
    """The gradient at the logits equals finite differences in float64."""
    samples = subject.batch((2, 0), seed=2, levels=((2, 4),), per_object=2)
    logits = samples.logits.double()
    for criterion, when in ((subject.criterion(), "in the first step"), (subject.trained(), "after two steps")):
        part = subject.part_of(criterion)
        if (found := subject.values(part, with_logits(samples, logits)).dtype) != torch.float64:
            yield Fault("float64 values of float64 logits, for derivatives are compared there", f"{found}", WIDEN)
            return

        def total(x: Tensor, part: Component = part) -> Tensor:
            losses = subject.by_anchor(subject.values(part, with_logits(samples, x)), samples)
            return (losses * torch.linspace(0.5, 1.5, len(losses), dtype=torch.float64)).sum()

        if seen := slope_difference(total, logits):
            yield Fault(
                f"the gradient that finite differences of the values give ({when})",
                seen,
                "correct the slopes of SigmoidTerms or Rows; a loss that detaches a factor on purpose skips this: "
                'skip=["gradient"]',
            )


def extreme_logits(subject: LossSubject) -> Iterator[Finding]:
    """Values and gradients are finite for logits of 0, 50, 1e4 and infinity with both signs."""
    part, samples = subject.part_of(subject.trained()), subject.batch()
    not_finite = []
    for case, logits in batches.extreme_logits(samples):
        results = subject.values_and_gradients(part, with_logits(samples, logits))
        bad = [int((~result.isfinite()).sum()) for result in results]
        if any(bad):
            not_finite.append(f"{case}: {bad[0]} values and {bad[1]} derivatives")
    if not_finite:
        yield Fault(
            "finite values and derivatives at logits of 0, 50, 1e4 and infinity",
            "not finite at " + "; ".join(not_finite),
            "use softplus, logsigmoid and log_softmax instead of logarithms of probabilities, and clamp logits to 1e5 "
            "after conversion to float32",
        )


def half_precision(subject: LossSubject) -> Iterator[Finding]:
    """Logits in float16 and bfloat16 give the same values and gradients as the same numbers in float32."""
    part = subject.part_of(subject.trained())
    for dtype, rounding in HALF.items():
        samples = with_logits(subject.batch(), subject.batch().logits.to(dtype))
        values, slopes = subject.values_and_gradients(part, samples)
        wide = subject.values_and_gradients(part, with_logits(samples, samples.logits.float()))
        if seen := difference(values, wide[0], 1e-4):
            yield Fault(f"the float32 values of {dtype} logits", seen, WIDEN)
        if seen := difference(slopes.float(), wide[1], 2 * rounding):
            yield Fault(f"a gradient of {dtype} logits equal to that in float32, rounded", seen, WIDEN)
        if slopes.dtype != dtype:
            yield Fault(f"a gradient in {dtype}, the dtype of the logits", f"{slopes.dtype}", WIDEN)


def ignored_anchors(subject: LossSubject) -> Iterator[Finding]:
    """Ignored anchors get no gradient, and their logits do not affect the loss."""
    batch = subject.batch()
    ignored = (batch.labels == IGNORED).unsqueeze(1)
    criterion = subject.trained()
    samples, leaves = with_leaves(batch)
    term = criterion(samples)[subject.term]
    slopes = gradients(term, leaves)[0]
    remedy = "exclude anchors with the label -2 from sums and statistics; the value of such an anchor does not matter"
    if seen := difference(slopes.masked_fill(~ignored, 0.0), torch.zeros_like(slopes)):
        yield Fault("no gradient at ignored anchors", seen, remedy)
    other = subject.step(subject.trained(), with_logits(batch, torch.where(ignored, 7.0, batch.logits)))
    if seen := difference(other, term.detach(), ROUNDING):
        yield Fault("a loss that does not depend on the logits of ignored anchors", seen, remedy)
