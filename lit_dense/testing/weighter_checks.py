"""What is checked of a weighter."""

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
from .compare import difference, state_difference
from .report import Fault, Finding, NotRun
from .subject import gradients
from .values import ROUNDING, WIDEN, hard_cases, reaches
from .weighter_subject import BOX_LOSSES, HALF, OF_ANCHORS, OF_BOXES, SOFT_TARGETS, WeighterSubject


def shape(subject: WeighterSubject) -> Iterator[Finding]:
    """Weights, soft targets and extra terms are there as they are announced, have the right shape and are float32."""
    for box_loss, what in BOX_LOSSES.items():
        tried = subject.with_losses("focal", box_loss)
        part, samples = tried.part_of(tried.criterion()), tried.batch()
        expected = {OF_ANCHORS: samples.labels.shape, OF_BOXES: samples.positives.shape}
        expected[SOFT_TARGETS] = samples.positives.shape
        for name, tensor in tried.answers(part, samples).items():
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
            "a weighter whose exclusive has the assignment if it has an assigner, and else has not",
            f"the assigner {assigner} and exclusive = {sorted(subject.part.exclusive)}",
            'set self.exclusive |= {"assignment"} where self.assigner is set',
        )


def not_negative(subject: WeighterSubject) -> Iterator[Finding]:
    """Weights are finite and at least 0, soft targets from 0 to 1, in the first step and after two."""
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
    """What is wrong with the size of numbers, by name; extra terms must only be finite."""
    found = {}
    for name, tensor in answers.items():
        bad = ~tensor.isfinite()
        if name in (OF_ANCHORS, OF_BOXES, SOFT_TARGETS):
            bad |= tensor < 0
        if name == SOFT_TARGETS:
            bad |= tensor > 1
        if bad.any():
            found[name] = f"{int(bad.sum())} of {bad.numel()} are not, such as {float(tensor[bad][0]):.6g}"
    return found


def _terms_and_slopes(
    criterion: Criterion, part: Component, batch: DenseSamples
) -> tuple[dict[str, Tensor], dict[str, Tensor | None]]:
    """Terms of a batch, and the gradient of their sum at leaves and parameters; None where it does not reach."""
    samples, leaves = with_leaves(batch)
    terms: dict[str, Tensor] = criterion(samples)
    named = dict(zip(("logits", "deltas"), leaves, strict=True)) | dict(part.named_parameters())
    total = torch.stack(list(terms.values())).sum()
    slopes = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    return {name: term.detach() for name, term in terms.items()}, dict(zip(named, slopes, strict=True))


def extreme_logits(subject: WeighterSubject) -> Iterator[Finding]:
    """Logits of 0, 50, 1e4 and infinity, of either sign, give finite terms, and so finite weights, and gradients."""
    trained, batch, found = subject.trained(), subject.batch(), []
    for case, logits in batches.extreme_logits(batch):
        criterion = copy.deepcopy(trained)
        terms, slopes = _terms_and_slopes(criterion, subject.part_of(criterion), replace(batch, logits=logits))
        bad = [f"term {name!r}" for name, term in terms.items() if not term.isfinite()]
        bad += [f"gradient of {name}" for name, s in slopes.items() if s is not None and not s.isfinite().all()]
        if bad:
            found.append(f"{case}: {', '.join(bad)}")
    if found:
        yield Fault(
            "finite terms and gradients at logits of 0, 50, 1e4 and infinity",
            "not at " + "; ".join(found),
            "clamp what is divided by or taken the logarithm of, and keep probabilities away from 0 and 1 there",
        )


def half_precision(subject: WeighterSubject) -> Iterator[Finding]:
    """Predictions in float16 and bfloat16 give what the same numbers give in float32."""
    part, batch = subject.part_of(subject.trained()), subject.batch()
    for dtype in HALF:
        half = with_derived(replace(batch, logits=batch.logits.to(dtype), deltas=batch.deltas.to(dtype)))
        wide = with_derived(replace(half, logits=half.logits.float(), deltas=half.deltas.float()))
        if seen := state_difference(subject.answers(part, half), subject.answers(part, wide), 1e-4):
            yield Fault(f"the float32 weights of {dtype} logits and deltas", seen, WIDEN)


def hard_batches(subject: WeighterSubject) -> Iterator[Finding]:
    """Batches without anchors, without positives, with one, and with all anchors ignored: finite and connected."""
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
                        "compute the same on an empty selection too, in place of returning early; clamp what is "
                        "divided by: .clamp(min=1); the mean of nothing is NaN",
                    )


def _not_finite(total: Tensor, leaves: tuple[Tensor, Tensor]) -> list[str]:
    slopes = zip(("logits", "deltas"), gradients(total, leaves), strict=True)
    return [name for name, slope in slopes if not slope.isfinite().all()]


def parameters(subject: WeighterSubject) -> Iterator[Finding]:
    """Every parameter gets a finite gradient in every batch, and is in one parameter group at most."""
    for case, batch in {"objects": subject.batch(), **hard_cases(subject)}.items():
        criterion = subject.trained()
        if seen := _without_gradient(criterion, subject.part_of(criterion), batch):
            yield Fault(f"a finite gradient for each parameter from a batch with {case}", seen, _PARAMETERS)
    part = subject.part_of(subject.criterion())
    grouped = [id(parameter) for group in part.param_groups() for parameter in group["params"]]
    own = [id(parameter) for parameter in part.parameters()]
    if len(set(grouped)) != len(grouped) or set(grouped) - set(own):
        yield Fault(
            "parameter groups that hold parameters of the weighter, each once",
            f"{len(grouped)} parameters in groups, {len(set(grouped))} of them different, {len(own)} of the weighter",
            'return [{"params": list(self.parameters()), ...}] from param_groups',
        )


_PARAMETERS = (
    "use every parameter whatever the batch holds, if only on an empty selection: data-parallel training waits for the "
    "gradient of each on every process"
)


def _without_gradient(criterion: Criterion, part: Component, batch: DenseSamples) -> str | None:
    """Which parameters get no gradient or one that is not finite, None if none."""
    _, slopes = _terms_and_slopes(criterion, part, batch)
    needed = [(name, slopes[name]) for name, p in part.named_parameters() if p.requires_grad]
    missing = [f"none for {name}" for name, slope in needed if slope is None]
    missing += [f"not finite for {name}" for name, slope in needed if slope is not None and not slope.isfinite().all()]
    return ", ".join(missing) or None


def ignored_anchors(subject: WeighterSubject) -> Iterator[Finding]:
    """Ignored anchors get no gradient, and what is predicted for them changes nothing."""
    batch = subject.batch()
    ignored = (batch.labels == IGNORED).unsqueeze(1)
    logits, deltas = torch.where(ignored, 7.0, batch.logits), torch.where(ignored, 1.0, batch.deltas)
    other = with_derived(replace(batch, logits=logits, deltas=deltas))
    remedy = "leave anchors with the label -2 out of sums, ranks and statistics; their weight does not matter"
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
    """Anchors of one level of one image in another order have the same weights, and give the same terms."""
    yield from _same_in_order(subject, *shuffled(subject.batch()), "anchors within a level")


def order_of_images(subject: WeighterSubject) -> Iterator[Finding]:
    """Images of a batch in another order have the same weights, and give the same terms."""
    yield from _same_in_order(subject, *in_order(subject.batch(), (2, 3, 1, 0)), "images of a batch")


def _same_in_order(subject: WeighterSubject, other: DenseSamples, order: Tensor, what: str) -> Iterator[Fault]:
    samples, part = subject.batch(), subject.part_of(subject.trained())
    plain, moved = (_by_anchor(subject.answers(part, s), s) for s in (samples, other))
    plain = {name: answer[order] if answer.dim() else answer for name, answer in plain.items()}
    if seen := state_difference(moved, plain, ROUNDING):
        yield Fault(f"the same weights in the new order, whatever the order of {what}", seen, _BY_INDEX)
    terms, expected = (subject.trained()(with_leaves(s)[0]) for s in (other, samples))
    if seen := state_difference(terms, expected, ROUNDING):
        yield Fault(f"the same loss terms, whatever the order of {what}", seen, _BY_INDEX)


_BY_INDEX = (
    "look anchors up by samples.positives, samples.labels, samples.image_idxs and the like rather than by their "
    "position, and let no image be the first"
)


def _by_anchor(answers: Mapping[str, Tensor], samples: DenseSamples) -> dict[str, Tensor]:
    """What is said of positives at their anchors [A]."""
    found = dict(answers)
    for name in (OF_BOXES, SOFT_TARGETS):
        if (at_anchors := samples.scatter_to_anchors(found.get(name))) is not None:
            found[name] = at_anchors
    return found


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
        said = [a for a in (answer.classification, answer.box, *answer.extra.values()) if a is not None]
        gradients(sum((a.sum() for a in said), torch.zeros(())), leaves)
        for name, tensor in given.items():
            if seen := difference(tensor.detach(), before[name]):
                yield Fault(
                    f"{name} is the same after the weighter (with {box_loss})",
                    seen,
                    "use no operation in place on what is given, such as x.clamp_() or x[mask] = 0",
                )


def off_in_evaluation(subject: WeighterSubject) -> Iterator[Finding]:
    """Under ``no_grad`` the terms are those of the losses alone, without extra terms."""
    for box_loss in BOX_LOSSES:
        tried = subject.with_losses("focal", box_loss)
        criterion, plain = tried.trained(), tried.plain()
        with torch.no_grad():
            terms, expected = criterion(tried.batch()), plain(tried.batch())
        if seen := state_difference(terms, expected):
            yield Fault(
                f"the terms of the losses alone in evaluation (with {box_loss})",
                seen,
                "override forward and soft_targets rather than scheduled and scheduled_soft_targets, which ask neither "
                "there",
            )


def schedule(subject: WeighterSubject) -> Iterator[Finding]:
    """Before ``warmup_steps`` the terms are those of the losses alone, though parameters get a gradient."""
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
            yield Fault(f"a gradient for each parameter in step {step} of {warmup} before it counts", seen, _SCHEDULE)
        terms, expected = criterion(with_leaves(batch)[0]), subject.plain()(with_leaves(batch)[0])
        expected = {name: torch.zeros_like(term) for name, term in terms.items()} | expected
        if seen := state_difference(terms, expected):
            yield Fault(
                f"the terms of the losses alone, and extra terms of 0, in step {step} of {warmup} before it counts",
                seen,
                _SCHEDULE,
            )
    batch = replace(subject.batch(), context=StepContext(step=warmup, class_counts=subject.counts))
    late, early = (subject.scheduled_from(steps)(with_leaves(batch)[0]) for steps in (warmup, 0))
    if seen := state_difference(late, early):
        yield Fault(f"the terms of a weighter without schedule in step {warmup}, from which it counts", seen, _SCHEDULE)


_SCHEDULE = (
    "pass **schedule on to super().__init__, and leave scheduled and scheduled_soft_targets as they are: "
    "they go from 1, or from 0 for an extra term, to what forward says"
)
