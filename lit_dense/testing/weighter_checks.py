"""The checks of a weighter."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from ..core.component import Component
from ..core.samples import IGNORED, DenseSamples
from ..core.step_context import StepContext
from ..criterion import Criterion
from ..weighters import WEIGHTERS, Weighter, Weights
from . import batches
from .batches import in_order, shuffled, tensors_of, with_derived, with_leaves
from .check_runner import Fault, Finding, NotRun
from .subject import gradients
from .tensor_differences import difference, state_difference
from .values import ROUNDING, WIDEN, hard_cases, reaches
from .weighter_subject import BOX_LOSSES, DUAL, HALF, OF_ANCHORS, OF_BOXES, SOFT_TARGETS, WeighterSubject

OF_POSITIVES = frozenset({OF_BOXES, SOFT_TARGETS, *DUAL})


def shape(subject: WeighterSubject) -> Iterator[Finding]:
    """Weights, soft targets and extra terms have the right shape and are float32; exclusive matches the assigner."""
    for box_loss, what in BOX_LOSSES.items():
        tried = subject.with_losses("focal", box_loss)
        part = tried.part_of(tried.criterion())
        samples, values = tried.asked(part, tried.batch())
        expected = {OF_ANCHORS: samples.labels.shape} | dict.fromkeys(OF_POSITIVES, samples.positives.shape)
        for name, tensor in tried.answers_of(part, samples, values).items():
            if tensor.shape != (right := expected.get(name, torch.Size(()))):
                yield Fault(
                    f"{name} of shape {list(right)} (the box loss gives {what})",
                    f"{list(tensor.shape)}",
                    "one weight for each anchor [A] and each positive [P], or None; an extra term is one number []",
                )
            if tensor.dtype != torch.float32:
                yield Fault(f"{name} in float32", f"{tensor.dtype}", WIDEN)
    assigner = subject.part.assigner if isinstance(subject.part, Weighter) else None
    if (assigner is not None) != ("assignment" in subject.part.exclusive):
        yield Fault(
            "'assignment' in exclusive exactly if the weighter has an assigner",
            f"the assigner {assigner} and exclusive = {sorted(subject.part.exclusive)}",
            'set self.exclusive |= {"assignment"} together with self.assigner',
        )


def not_negative(subject: WeighterSubject) -> Iterator[Finding]:
    """Weights are finite and at least 0, soft targets from 0 to 1, in the first step and after two steps."""
    for box_loss in BOX_LOSSES:
        tried = subject.with_losses("focal", box_loss)
        for criterion, when in ((tried.criterion(), "in the first step"), (tried.trained(), "after two steps")):
            for name, seen in _out_of_range(tried.answers(tried.part_of(criterion), tried.batch())).items():
                yield Fault(
                    f"{name} that are finite and at least 0, targets at most 1 ({when}, with {box_loss})",
                    seen,
                    "clamp weights from below, such as .clamp(min=0), and targets to [0, 1]",
                )


def _out_of_range(answers: Mapping[str, Tensor]) -> dict[str, str]:
    """Describe values out of range, by name; extra terms only need to be finite."""
    problems = {}
    for name, tensor in answers.items():
        bad = ~tensor.isfinite()
        if name in (OF_ANCHORS, OF_BOXES, SOFT_TARGETS):
            bad |= tensor < 0
        if name == SOFT_TARGETS:
            bad |= tensor > 1
        if bad.any():
            problems[name] = f"{int(bad.sum())} of {bad.numel()} are not, such as {float(tensor[bad][0]):.6g}"
    return problems


def _terms_and_slopes(
    criterion: Criterion, part: Component, batch: DenseSamples
) -> tuple[dict[str, Tensor], dict[str, Tensor | None]]:
    """Return the terms of a batch, and the gradients of their sum at leaves and parameters; None if not connected."""
    samples, leaves = with_leaves(batch)
    terms: dict[str, Tensor] = criterion(samples)
    named = dict(zip(("logits", "deltas"), leaves, strict=True)) | dict(part.named_parameters())
    total = torch.stack(list(terms.values())).sum()
    slopes = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    return {name: term.detach() for name, term in terms.items()}, dict(zip(named, slopes, strict=True))


def extreme_logits(subject: WeighterSubject) -> Iterator[Finding]:
    """Terms (and so weights) and gradients are finite for logits of 0, 50, 1e4 and infinity with both signs."""
    trained, batch, not_finite = subject.trained(), subject.batch(), []
    for case, logits in batches.extreme_logits(batch):
        criterion = copy.deepcopy(trained)
        terms, slopes = _terms_and_slopes(criterion, subject.part_of(criterion), replace(batch, logits=logits))
        bad = [f"term {name!r}" for name, term in terms.items() if not term.isfinite()]
        bad += [f"gradient of {name}" for name, s in slopes.items() if s is not None and not s.isfinite().all()]
        if bad:
            not_finite.append(f"{case}: {', '.join(bad)}")
    if not_finite:
        yield Fault(
            "finite terms and gradients at logits of 0, 50, 1e4 and infinity",
            "not at " + "; ".join(not_finite),
            "clamp divisors and arguments of logarithms, and keep probabilities away from 0 and 1 there",
        )


def half_precision(subject: WeighterSubject) -> Iterator[Finding]:
    """Predictions in float16 and bfloat16 give the same weights as the same numbers in float32."""
    part, batch = subject.part_of(subject.trained()), subject.batch()
    for dtype in HALF:
        half = with_derived(replace(batch, logits=batch.logits.to(dtype), deltas=batch.deltas.to(dtype)))
        wide = with_derived(replace(half, logits=half.logits.float(), deltas=half.deltas.float()))
        if seen := state_difference(subject.answers(part, half), subject.answers(part, wide), 1e-4):
            yield Fault(f"the float32 weights of {dtype} logits and deltas", seen, WIDEN)


def hard_batches(subject: WeighterSubject) -> Iterator[Finding]:
    """Weights are finite and connected for batches without anchors, without positives, with one, and all ignored."""
    cases = hard_cases(subject)
    for box_loss in BOX_LOSSES:
        tried = subject.with_losses("focal", box_loss)
        for case, batch in cases.items():
            for criterion, when in ((tried.criterion(), "in the first step"), (tried.trained(1), "after one step")):
                part = tried.part_of(criterion)
                seen = [f"{name}: {text}" for name, text in _out_of_range(tried.answers(part, batch)).items()]
                part.discard()
                samples, leaves = with_leaves(batch)
                terms = criterion(samples)
                seen += [f"the loss term {name!r} {t.item()}" for name, t in terms.items() if not t.isfinite()]
                total = torch.stack(list(terms.values())).sum()
                seen += [f"gradients of {n} that are not finite" for n in _not_finite(total, leaves)]
                own = zip(("classification", "bbox_regression"), leaves, strict=True)
                seen += [f"a term {name!r} without a graph" for name, leaf in own if not reaches(terms[name], leaf)]
                if seen:
                    yield Fault(
                        f"a batch with {case} gives finite weights and terms, connected to the predictions "
                        f"({when}, with {box_loss})",
                        ", ".join(seen),
                        "use the same operations on an empty selection instead of returning early; clamp divisors: "
                        ".clamp(min=1); the mean of an empty tensor is NaN",
                    )


def _not_finite(total: Tensor, leaves: tuple[Tensor, Tensor]) -> list[str]:
    slopes = zip(("logits", "deltas"), gradients(total, leaves), strict=True)
    return [name for name, slope in slopes if not slope.isfinite().all()]


def parameters(subject: WeighterSubject) -> Iterator[Finding]:
    """Every parameter gets a finite gradient in every batch, and is in at most one parameter group."""
    for case, batch in {"objects": subject.batch(), **hard_cases(subject)}.items():
        criterion = subject.trained()
        if seen := _without_gradient(criterion, subject.part_of(criterion), batch):
            yield Fault(f"a finite gradient for each parameter from a batch with {case}", seen, _PARAMETERS)
    part = subject.part_of(subject.criterion())
    grouped = [id(parameter) for group in part.param_groups() for parameter in group["params"]]
    own = [id(parameter) for parameter in part.parameters()]
    if len(set(grouped)) != len(grouped) or set(grouped) - set(own):
        yield Fault(
            "parameter groups with parameters of the weighter, each only once",
            f"{len(grouped)} parameters in groups, {len(set(grouped))} of them different, {len(own)} of the weighter",
            'return [{"params": list(self.parameters()), ...}] from param_groups',
        )


_PARAMETERS = (
    "use every parameter in every batch, at least on an empty selection: data-parallel training waits for the gradient "
    "of each parameter on every process"
)


def _without_gradient(criterion: Criterion, part: Component, batch: DenseSamples) -> str | None:
    """List the parameters without a gradient or with one that is not finite; None if there are none."""
    _, slopes = _terms_and_slopes(criterion, part, batch)
    needed = [(name, slopes[name]) for name, p in part.named_parameters() if p.requires_grad]
    missing = [f"none for {name}" for name, slope in needed if slope is None]
    missing += [f"not finite for {name}" for name, slope in needed if slope is not None and not slope.isfinite().all()]
    return ", ".join(missing) or None


def ignored_anchors(subject: WeighterSubject) -> Iterator[Finding]:
    """Ignored anchors get no gradient, and their predictions do not affect the result."""
    batch = subject.batch()
    ignored = (batch.labels == IGNORED).unsqueeze(1)
    logits, deltas = torch.where(ignored, 7.0, batch.logits), torch.where(ignored, 1.0, batch.deltas)
    other = with_derived(replace(batch, logits=logits, deltas=deltas))
    remedy = "exclude anchors with the label -2 from sums, ranks and statistics; their weight does not matter"
    criterion = subject.trained()
    part = subject.part_of(criterion)
    first, second = (subject.answers(part, b) for b in (batch, other))
    for answers in (first, second):
        if OF_ANCHORS in answers:
            answers[OF_ANCHORS] = answers[OF_ANCHORS][batch.valid]
    if seen := state_difference(second, first, ROUNDING):
        yield Fault("weights that do not depend on the predictions of ignored anchors", seen, remedy)
    part.discard()
    terms, slopes = _terms_and_slopes(criterion, part, batch)
    for name in ("logits", "deltas"):
        slope = slopes[name]
        if slope is not None and slope.masked_fill(~ignored, 0.0).any():
            yield Fault(f"no gradient at the {name} of ignored anchors", "a gradient there", remedy)
    criterion = subject.trained()
    others, _ = _terms_and_slopes(criterion, subject.part_of(criterion), other)
    if seen := state_difference(others, terms, ROUNDING):
        yield Fault("loss terms that do not depend on the predictions of ignored anchors", seen, remedy)


def order_of_anchors(subject: WeighterSubject) -> Iterator[Finding]:
    """Reordered anchors within a level of an image have the same weights, and give the same terms."""
    yield from _same_in_order(subject, *shuffled(subject.batch()), "anchors within a level")


def order_of_images(subject: WeighterSubject) -> Iterator[Finding]:
    """Reordered images of a batch have the same weights, and give the same terms."""
    yield from _same_in_order(subject, *in_order(subject.batch(), (2, 3, 1, 0)), "images of a batch")


def _same_in_order(subject: WeighterSubject, other: DenseSamples, order: Tensor, what: str) -> Iterator[Fault]:
    samples, part = subject.batch(), subject.part_of(subject.trained())
    plain, moved = (_by_anchor(subject, part, s) for s in (samples, other))
    plain = {name: answer[order] if answer.dim() else answer for name, answer in plain.items()}
    if seen := state_difference(moved, plain, ROUNDING):
        yield Fault(f"the same weights for any order of {what}", seen, _BY_INDEX)
    terms, expected = (subject.trained()(with_leaves(s)[0]) for s in (other, samples))
    if seen := state_difference(terms, expected, ROUNDING):
        yield Fault(f"the same loss terms for any order of {what}", seen, _BY_INDEX)


_BY_INDEX = (
    "select anchors by samples.positives, samples.labels, samples.image_idxs and similar fields, not by position, and "
    "do not treat the first image differently"
)


def _by_anchor(subject: WeighterSubject, part: Component, samples: DenseSamples) -> dict[str, Tensor]:
    """Return the outputs of the weighter, those of positives summed over the positives of each anchor [A]."""
    samples, values = subject.asked(part, samples)
    by_anchor = subject.answers_of(part, samples, values)
    for name in OF_POSITIVES & by_anchor.keys():
        zeros = by_anchor[name].new_zeros(len(samples.labels))
        by_anchor[name] = zeros.index_add(0, samples.positives, by_anchor[name])
    return by_anchor


def inputs_untouched(subject: WeighterSubject) -> Iterator[Finding]:
    """The tensors of the batch and the values of the losses are the same after the forward and backward pass."""
    for box_loss in BOX_LOSSES:
        tried = subject.with_losses("focal", box_loss)
        part, (samples, leaves) = tried.part_of(tried.criterion()), with_leaves(tried.batch())
        samples, values = tried.asked(part, samples)
        given = {f"samples.{name}": tensor for name, tensor in tensors_of(samples).items()}
        given |= {f"values.{n}": value for n, value in values._asdict().items() if isinstance(value, torch.Tensor)}
        before = {name: tensor.detach().clone() for name, tensor in given.items()}
        answer: Weights = part(samples, values)
        outputs = [t for t in (answer.classification, answer.box, *answer.extra.values()) if t is not None]
        gradients(sum((t.sum() for t in outputs), torch.zeros(())), leaves)
        for name, tensor in given.items():
            if seen := difference(tensor.detach(), before[name]):
                yield Fault(
                    f"{name} is the same after the weighter (with {box_loss})",
                    seen,
                    "do not change inputs in place, such as by x.clamp_() or x[mask] = 0",
                )


def off_in_evaluation(subject: WeighterSubject) -> Iterator[Finding]:
    """Under ``no_grad`` the terms are those of the losses without the weighter, and there are no extra terms."""
    for box_loss in BOX_LOSSES:
        tried = subject.with_losses("focal", box_loss)
        criterion, plain = tried.trained(), tried.plain()
        with torch.no_grad():
            terms, expected = criterion(tried.batch()), plain(tried.batch())
        if seen := state_difference(terms, expected):
            yield Fault(
                f"the terms of the losses without the weighter in evaluation (with {box_loss})",
                seen,
                "override forward and soft_targets, not scheduled and scheduled_soft_targets, which call neither in "
                "evaluation",
            )


def schedule(subject: WeighterSubject) -> Iterator[Finding]:
    """Before ``warmup_steps`` the terms are those of the losses without the weighter; parameters get a gradient."""
    if WEIGHTERS.unknown_args(type(subject.part), ["warmup_steps"]):
        yield NotRun("the constructor has no argument warmup_steps")
        return
    warmup = 2
    criterion = subject.scheduled_from(warmup)
    part = subject.part_of(criterion)
    if part.spec != (rebuilt := subject.build(part.spec)).spec or getattr(rebuilt, "warmup_steps", None) != warmup:
        yield Fault(f"a spec with warmup_steps={warmup}", f"{rebuilt.spec}", _SCHEDULE)
    for step in range(warmup):
        batch = replace(subject.batch(seed=step), context=StepContext(step=step, class_counts=subject.counts))
        if seen := _without_gradient(criterion, part, batch):
            yield Fault(f"a gradient for each parameter in step {step} of {warmup} warm-up steps", seen, _SCHEDULE)
        terms, expected = criterion(with_leaves(batch)[0]), subject.plain()(with_leaves(batch)[0])
        expected = {name: torch.zeros_like(term) for name, term in terms.items()} | expected
        if seen := state_difference(terms, expected):
            yield Fault(
                f"the terms of the losses without the weighter, and extra terms of 0, in step {step} of {warmup} "
                "warm-up steps",
                seen,
                _SCHEDULE,
            )
    batch = replace(subject.batch(), context=StepContext(step=warmup, class_counts=subject.counts))
    late, early = (subject.scheduled_from(steps)(with_leaves(batch)[0]) for steps in (warmup, 0))
    if seen := state_difference(late, early):
        yield Fault(f"the terms of a weighter without schedule in step {warmup}, after the warm-up", seen, _SCHEDULE)


_SCHEDULE = (
    "pass **schedule to super().__init__, and do not override scheduled and scheduled_soft_targets: they interpolate "
    "from 1, or from 0 for an extra term, to the result of forward"
)
