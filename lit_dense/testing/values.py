"""Checks of a part's output: shape, order of anchors, edge cases, autocast, compilation, device synchronisation."""

from collections.abc import Iterator

import torch

from ..core.samples import DenseSamples
from .batches import all_ignored, shuffled, tensors_of, with_leaves
from .check_runner import Fault, Finding, NotRun
from .host_sync import host_reads
from .subject import LossSubject, Subject, gradients
from .tensor_differences import difference

ROUNDING = 1e-5
"""Largest rounding error of float32 sums in another order, as a share of the largest number."""
WIDEN = "compute in float32 or wider: x.to(torch.promote_types(x.dtype, torch.float32)), or write a SigmoidLoss"


def shape(subject: LossSubject) -> Iterator[Finding]:
    """Values have the right shape, are float32 and have a graph."""
    samples, leaves = with_leaves(subject.batch())
    values = subject.values(subject.part_of(subject.criterion()), samples)
    if not subject.right_shape(values, samples):
        positives, anchors = len(samples.positives), len(samples.labels)
        yield Fault(
            f"the shape of a {subject.kind}'s values",
            f"{list(values.shape)} for A = {anchors} anchors, P = {positives} positives and C = {subject.num_classes}",
            "a classification loss returns [A], a box loss [P] or [P, 4]: sum over classes, not over the batch",
        )
    if values.dtype != torch.float32:
        yield Fault("float32 values", f"{values.dtype}", WIDEN)
    if not reaches(values.sum(), subject.own_leaf(leaves)):
        yield Fault(
            "values that are connected to the predictions",
            "values without a graph",
            "compute them from the first argument, without detach, .data or torch.no_grad",
        )


def hard_batches(subject: LossSubject) -> Iterator[Finding]:
    """Values are finite and connected for batches without anchors, without positives, with one, and all ignored."""
    for case, batch in hard_cases(subject).items():
        for criterion, when in ((subject.criterion(), "in the first step"), (subject.trained(), "after two steps")):
            samples, leaves = with_leaves(batch)
            part, leaf = subject.part_of(criterion), subject.own_leaf(leaves)
            values = subject.values(part, samples)
            part.discard()
            term = criterion(samples)[subject.term]
            gradient = gradients(term, (leaf,))[0]
            problems = [
                (not subject.right_shape(values, samples), f"values of shape {list(values.shape)}"),
                (not bool(values.isfinite().all()), "values that are not finite"),
                (not bool(term.isfinite()), f"the loss term {term.item()}"),
                (not bool(gradient.isfinite().all()), "gradients that are not finite"),
                (not reaches(subject.values(part, samples).sum(), leaf), "values without a graph"),
            ]
            if seen := [text for wrong, text in problems if wrong]:
                yield Fault(
                    f"a batch with {case} gives finite values that are connected to the predictions ({when})",
                    ", ".join(seen),
                    "use the same operations on an empty selection instead of returning early; clamp divisors: "
                    ".clamp(min=1)",
                )


def hard_cases(subject: Subject) -> dict[str, DenseSamples]:
    """Return the edge cases of batches by name."""
    return {
        "no anchors": subject.batch((0,), levels=((0, 0),)),
        "no positives": subject.batch((0, 0)),
        "one positive": subject.batch((1,), per_object=1),
        "all anchors ignored": all_ignored(subject.batch()),
    }


def reaches(total: torch.Tensor, leaf: torch.Tensor) -> bool:
    """Return whether a number is connected to a leaf in the graph."""
    if not total.requires_grad:
        return False
    return torch.autograd.grad(total, leaf, allow_unused=True, retain_graph=True)[0] is not None


def order_of_anchors(subject: LossSubject) -> Iterator[Finding]:
    """Reordered anchors within a level of an image give the same values in the new order."""
    part, samples = subject.part_of(subject.trained()), subject.batch()
    other, order = shuffled(samples)
    plain = subject.by_anchor(subject.values(part, samples), samples)[order]
    if seen := difference(subject.by_anchor(subject.values(part, other), other), plain, ROUNDING):
        yield Fault(
            "the same values for any order of anchors within a level",
            seen,
            "select anchors by samples.positives, samples.labels and similar fields, not by their position",
        )


def inputs_untouched(subject: LossSubject) -> Iterator[Finding]:
    """The tensors of the batch are the same after the forward and the backward pass."""
    samples, leaves = with_leaves(subject.batch())
    before = {name: tensor.detach().clone() for name, tensor in tensors_of(samples).items()}
    gradients(subject.values(subject.part_of(subject.criterion()), samples).sum(), leaves)
    for name, tensor in tensors_of(samples).items():
        if seen := difference(tensor.detach(), before[name]):
            yield Fault(
                f"samples.{name} is the same after the loss",
                seen,
                "do not change inputs in place, such as by x.clamp_() or x[mask] = 0",
            )


def autocast(subject: Subject) -> Iterator[Finding]:
    """Under bfloat16 autocast the criterion gives the same result as without, in float32."""
    samples = subject.batch()
    plain = subject.step(subject.trained(), samples)
    criterion = subject.trained()
    with torch.autocast("cpu", torch.bfloat16):
        term = subject.step(criterion, samples)
    if seen := difference(term, plain, ROUNDING):
        yield Fault(
            "the same loss term under autocast, which the criterion disables",
            seen,
            "do not enable torch.autocast within forward",
        )


def compiled(subject: LossSubject) -> Iterator[Finding]:
    """``torch.compile`` gives the same values and gradients; only tracing is used, without a compiler."""
    if reason := _no_dynamo():
        yield NotRun(reason)
        return
    torch._dynamo.reset()  # otherwise earlier checks count towards the recompilation limit
    part, samples = subject.part_of(subject.trained()), subject.batch()
    plain = subject.values_and_gradients(part, samples)
    traced = subject.values_and_gradients(torch.compile(part, backend="eager"), samples)  # type: ignore[arg-type]
    part.discard()
    for what, actual, expected in zip(("values", "gradients"), traced, plain, strict=True):
        if seen := difference(actual, expected, ROUNDING):
            yield Fault(
                f"the same {what} from torch.compile(loss)",
                seen,
                "look for Python numbers read from tensors, and for state in Python attributes",
            )


def _no_dynamo() -> str | None:
    try:
        from torch._dynamo.eval_frame import is_dynamo_supported
    except ImportError:
        return "this torch has no dynamo"
    return None if is_dynamo_supported() else "dynamo does not support this Python or system"


def no_host_sync(subject: LossSubject) -> Iterator[Finding]:
    """Forward and backward pass do not synchronise with the device."""
    part, (samples, leaves) = subject.part_of(subject.trained()), with_leaves(subject.batch())

    def step(samples: DenseSamples = samples) -> None:
        gradients(subject.values(part, samples).sum(), leaves)

    if reads := list(dict.fromkeys(host_reads(step))):
        yield Fault(
            "no operation that synchronises with the device",
            "; ".join(reads),
            "keep numbers in tensors, use torch.where instead of masks, and samples.positives (indices, computed once "
            "per batch) instead of nonzero",
        )
