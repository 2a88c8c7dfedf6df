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
from .compare import difference, slope_difference
from .processes import TwoProcesses, two_processes_agree
from .report import Check, Fault, Finding, run_checks
from .subject import LossSubject, gradients
from .values import ROUNDING, WIDEN

HALF = {torch.float16: 2**-11, torch.bfloat16: 2**-8}
"""Half-precision types, and what rounding to them may change as a share of a number."""


def check_classification_loss(
    loss: LossLike,
    *,
    skip: Collection[str] = (),
    class_counts: ClassCounts | None = None,
    two_processes: TwoProcesses | None = None,
) -> None:
    """Hold a classification loss against everything that lit_dense expects of one.

    Args:
        loss: A loss, a name, or a dict with class_path and init_args. It is copied and stays what it was.
        skip: Names of checks that are not made, such as ``gradient`` for a loss with a detached factor.
        class_counts: What the loss is told of the training set, and how many classes there are; by default five
            invented classes, one of them without objects.
        two_processes: ``two_processes(function, *args)`` returns the results of ``function(rank, *args)`` of two
            processes of one gloo group; by default two are started, which takes seconds.

    Raises:
        CheckFailure: If a check failed; the message lists what was expected, what was seen and what to do.
        UsageError: If the loss cannot be built, or a name to skip is unknown.

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
    subject.criterion()  # what it cannot do without is said as it is
    run_checks(subject.title, subject, checks, skip)


class ClassificationSubject(LossSubject):
    """A classification loss that is checked."""

    kind, term = "classification loss", "classification"

    def __init__(self, part: DenseLoss, class_counts: ClassCounts | None = None) -> None:
        super().__init__(part, class_counts)
        self.extra_logits = part.extra_logits

    def build(self, spec: dict[str, Any]) -> Component:
        """A loss from its spec."""
        return LOSSES.build(spec)

    def criterion_with(self, part: Component) -> Criterion:
        """A criterion around the loss."""
        return Criterion(part)  # type: ignore[arg-type]  # the subject was made of a loss

    def part_of(self, criterion: Criterion) -> Component:
        """The loss inside."""
        return criterion.loss

    def values(self, part: Component, samples: DenseSamples) -> Tensor:
        """One value per anchor."""
        answer: Tensor = part(samples.logits, samples.labels, samples)
        return answer

    def by_anchor(self, values: Tensor, samples: DenseSamples) -> Tensor:
        """The values of anchors that count."""
        return values.masked_fill(~samples.valid, 0.0)

    def right_shape(self, values: Tensor, samples: DenseSamples) -> bool:
        """Whether there is one value per anchor."""
        return values.shape == samples.labels.shape

    def own_leaf(self, leaves: tuple[Tensor, Tensor]) -> Tensor:
        """The logits."""
        return leaves[0]


def gradient(subject: LossSubject) -> Iterator[Finding]:
    """The gradient at the logits is that of finite differences, in float64."""
    samples = subject.batch((2, 0), seed=2, levels=((2, 4),), per_object=2)
    logits = samples.logits.double()
    for criterion, when in ((subject.criterion(), "in the first step"), (subject.trained(), "after two steps")):
        part = subject.part_of(criterion)
        if (found := subject.values(part, with_logits(samples, logits)).dtype) != torch.float64:
            yield Fault("float64 values of float64 logits, for derivatives are compared there", f"{found}", WIDEN)
            return

        def total(x: Tensor, part: Component = part) -> Tensor:
            answer = subject.by_anchor(subject.values(part, with_logits(samples, x)), samples)
            return (answer * torch.linspace(0.5, 1.5, len(answer), dtype=torch.float64)).sum()

        if seen := slope_difference(total, logits):
            yield Fault(
                f"the gradient that finite differences of the values give ({when})",
                seen,
                "correct the slopes of SigmoidTerms or Rows; a loss that detaches a factor on purpose skips this: "
                'skip=["gradient"]',
            )


def extreme_logits(subject: LossSubject) -> Iterator[Finding]:
    """Logits of 0, 50, 1e4 and infinity, of either sign, give finite values and gradients."""
    part, samples = subject.part_of(subject.trained()), subject.batch()
    found = []
    for case, logits in batches.extreme_logits(samples):
        answers = subject.values_and_gradients(part, with_logits(samples, logits))
        bad = [int((~a.isfinite()).sum()) for a in answers]
        if any(bad):
            found.append(f"{case}: {bad[0]} values and {bad[1]} derivatives")
    if found:
        yield Fault(
            "finite values and derivatives at logits of 0, 50, 1e4 and infinity",
            "not finite at " + "; ".join(found),
            "use softplus, logsigmoid and log_softmax in place of logarithms of probabilities, and clamp logits to 1e5 "
            "after they are widened",
        )


def half_precision(subject: LossSubject) -> Iterator[Finding]:
    """Logits in float16 and bfloat16 give the values and gradients that the same numbers give in float32."""
    part = subject.part_of(subject.trained())
    for dtype, rounding in HALF.items():
        samples = with_logits(subject.batch(), subject.batch().logits.to(dtype))
        values, slopes = subject.values_and_gradients(part, samples)
        wide = subject.values_and_gradients(part, with_logits(samples, samples.logits.float()))
        if seen := difference(values, wide[0], 1e-4):
            yield Fault(f"the float32 values of {dtype} logits", seen, WIDEN)
        if seen := difference(slopes.float(), wide[1], 2 * rounding):
            yield Fault(f"the gradient of {dtype} logits that float32 gives, rounded", seen, WIDEN)
        if slopes.dtype != dtype:
            yield Fault(f"a gradient of {dtype}, as the logits", f"{slopes.dtype}", WIDEN)


def ignored_anchors(subject: LossSubject) -> Iterator[Finding]:
    """Ignored anchors get no gradient, and their logits change nothing."""
    batch = subject.batch()
    ignored = (batch.labels == IGNORED).unsqueeze(1)
    criterion = subject.trained()
    samples, leaves = with_leaves(batch)
    term = criterion(samples)[subject.term]
    slopes = gradients(term, leaves)[0]
    remedy = "leave anchors with the label -2 out of sums and statistics; the value of such an anchor does not matter"
    if seen := difference(slopes.masked_fill(~ignored, 0.0), torch.zeros_like(slopes)):
        yield Fault("no gradient at ignored anchors", seen, remedy)
    other = subject.step(subject.trained(), with_logits(batch, torch.where(ignored, 7.0, batch.logits)))
    if seen := difference(other, term.detach(), ROUNDING):
        yield Fault("a loss that does not depend on the logits of ignored anchors", seen, remedy)
