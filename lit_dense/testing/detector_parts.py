"""Checks of an adapter with other components: columns, priors, samples, and every registered loss and weighter."""

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..assigners import Assigner, AssignInput
from ..box_losses import BOX_LOSSES
from ..core.errors import UsageError
from ..core.registry import Registry
from ..core.samples import NEGATIVE, DenseSamples
from ..criterion import REGISTRIES
from ..detectors.attach import attach, find_detector
from ..detectors.base import DetectorAdapter
from ..losses import LOSSES
from ..weighters import WEIGHTERS
from .check_runner import Fault, Finding, NotRun
from .detector_subject import DetectorSubject, not_finite

FIELDS: dict[str, dict[str, Callable[[DenseSamples], Sequence[int]]]] = {
    "": {
        "logits": lambda s: (len(s.image_idxs), s.num_classes + s.extra_logits),
        "labels": lambda s: (len(s.image_idxs),),
        "gt_labels": lambda s: (len(s.gt_image_idxs),),
        "pos_per_image": lambda s: (s.num_images,),
        "pos_scores": lambda s: (len(s.positives),),
        "best_scores": lambda s: (len(s.image_idxs),),
    },
    "boxes": {
        "gt_boxes": lambda s: (len(s.gt_labels), 4),
        "pos_boxes": lambda s: (len(s.positives), 4),
        "pos_ious": lambda s: (len(s.positives),),
    },
    "deltas": {
        "deltas": lambda s: (len(s.image_idxs), 4),
        "pos_deltas": lambda s: (len(s.positives), 4),
        "pos_target_deltas": lambda s: (len(s.positives), 4),
    },
    "anchors": {"anchors": lambda s: (len(s.image_idxs), 4)},
    "geometry": {"level_idxs": lambda s: (len(s.image_idxs),), "in_padding": lambda s: (len(s.image_idxs),)},
}
"""Fields of samples with their shapes, by the value of ``offers`` that announces them; those of "" always exist."""
FAR = 40.0
"""A logit so large that its class is certain."""


def refused_by_name(error: UsageError, names: Sequence[str]) -> bool:
    """Return whether an error names one of the refused parts, by its class or its registered name."""
    accepted = [text for name in names for text in (name, *(r.load(name).__name__ for r in _registries_with(name)))]
    return any(text in str(error) for text in accepted)


def _registries_with(name: str) -> list[Registry[Any]]:
    return [registry for registry in REGISTRIES.values() if name in registry.points]


def parts(subject: DetectorSubject) -> Iterator[Finding]:
    """Each registered loss, box loss, weighter, normalizer and assigner trains, or is refused by name when attached."""
    results: dict[tuple[str, str], Fault | None] = {}
    for stage in subject.stages:
        for kind, registry in REGISTRIES.items():
            for name in registry.points:
                given = {kind: [name] if kind == "weighters" else name}
                what = f"{name}{f' in stage {stage}' if stage else ''}"
                results[kind, what] = _problem(subject, subject.model(), stage, given, [name], steps=2)
    yield from _grouped(results)


def combinations(subject: DetectorSubject) -> Iterator[Finding]:
    """Each registered loss with each box loss and each weighter trains, or is refused by name when attached.

    A detector that keeps its own box loss is checked without one, because it refuses all of them.
    """
    results: dict[tuple[str, str], Fault | None] = {}
    box_losses = list(BOX_LOSSES.points) if "box_loss" in subject.adapter.offers else [None]
    for stage in subject.stages:
        model = subject.model()
        for loss, box_loss, weighter in itertools.product(LOSSES.points, box_losses, (None, *WEIGHTERS.points)):
            weighters = [] if weighter is None else [weighter]
            given = {"loss": loss, "box_loss": box_loss, "weighters": weighters}
            names = [loss, *([] if box_loss is None else [box_loss]), *weighters]
            what = f"{' + '.join(names)}{f' in stage {stage}' if stage else ''}"
            results["", what] = _problem(subject, model, stage, given, names)
    yield from _grouped(results)


def _grouped(results: Mapping[tuple[str, str], Fault | None]) -> Iterator[Finding]:
    """Merge equal faults into one; two kinds of parts can have the same name."""
    alike: dict[Fault, list[str]] = {}
    for (_, what), fault in results.items():
        if fault is not None:
            alike.setdefault(fault, []).append(what)
    for fault, which in alike.items():
        more = f" and {len(which) - 5} more" if len(which) > 5 else ""
        yield fault._replace(expected=f"{fault.expected} ({', '.join(which[:5])}{more})")


def _problem(
    subject: DetectorSubject,
    model: nn.Module,
    stage: str,
    given: dict[str, Any],
    names: Sequence[str],
    steps: int = 1,
) -> Fault | None:
    """Return the fault of parts that neither train nor are refused by name; None if there is none."""
    adapter = find_detector(model)
    try:
        criterion = subject.criterion(adapter, stage, **given)
        needed = 4 if criterion.box_loss is None else criterion.box_loss.box_outputs
        if adapter.can_set_box_outputs(stage) and needed != adapter.box_outputs(stage):
            adapter.set_box_outputs(needed, stage)
        attach(adapter, {stage: criterion})
    except UsageError as error:
        if refused_by_name(error, names):
            return None
        return Fault("a refusal that names a part", str(error), "raise a UsageError in check that names the part")
    try:
        results = [subject.run(model, subject.batch()) for _ in range(steps)]
    except Exception as error:  # a combination may raise any error
        return Fault(
            "a training step, or a UsageError when it is attached",
            f"{type(error).__name__}: {error}",
            "refuse parts that cannot be trained in check; copy tensors with a row per box from targets to "
            "target_fields",
        )
    if seen := next(filter(None, map(not_finite, results)), None):
        return Fault("finite terms and gradients", seen, "look at the shapes and columns of the samples")
    return None


def columns(subject: DetectorSubject) -> Iterator[Finding]:
    """If the bias selects a class, detections have its label, and with each loss the scores that the loss trains."""
    stage = subject.stages[0]
    for loss in (None, *LOSSES.points):
        model = subject.model()
        adapter = find_detector(model)
        try:
            adapter = attach(adapter, {stage: subject.criterion(adapter, stage, loss=loss)})
        except UsageError:  # covered by the check "parts"
            continue
        classes, first_label = adapter.criteria[stage].num_classes or 0, adapter.columns(stage).first_label
        own_loss = adapter.criteria[stage].loss
        name = type(own_loss).__name__
        try:
            forget_features(model, adapter, own_loss.prior_bias(classes, 0.5), stage)
        except UsageError as error:
            yield NotRun(str(error))
            return
        certain: list[tuple[float, float]] = []
        for likely in ([0], [classes - 1], [0, classes - 1])[: 3 if classes > 1 else 1]:
            bias = own_loss.prior_bias(classes, 0.5)
            bias[:classes] -= FAR
            bias[likely] += 2 * FAR
            adapter.set_class_bias(bias, stage)
            expected = float(own_loss.score_logits(bias).sigmoid()[0 if 0 in likely else -1])
            labels, score = _found(subject, model)
            certain.append((expected, score))
            if labels != [first_label + column for column in likely] or not 0 < score <= 1:
                yield Fault(
                    f"detections of labels {[first_label + column for column in likely]}, with scores from 0 to 1, "
                    f"where {name} predicts classes {likely}",
                    f"labels {labels}, the best score being {score:.3g}",
                    "check columns, and the order of columns in set_class_bias and in samples",
                )
        (single, seen_single), (both, seen_both) = certain[0], certain[-1]
        if (both > 0.99 * single) != (seen_both > 0.99 * seen_single):
            yield Fault(
                f"the scores that {name} trains, {both:.3g} for each of two classes with the largest logit",
                f"the scores {seen_both:.3g}, where a single such class has {seen_single:.3g}",
                "replace the scores of inference if own_scores says that the detector has different ones",
            )


def _found(subject: DetectorSubject, model: nn.Module) -> tuple[list[int], float]:
    """Return the labels of all detections, and the best score; NaN without detections."""
    detections = subject.detections(model)
    labels: list[int] = torch.cat([d["labels"] for d in detections]).unique().tolist()
    scores = torch.cat([d["scores"] for d in detections])
    return labels, float(scores.max()) if len(scores) else float("nan")


def prior(subject: DetectorSubject) -> Iterator[Finding]:
    """A prior sets the classifier's bias to the loss's values, in the right order of columns, and so the scores."""
    for stage in subject.stages:
        for loss in (None, *LOSSES.points):
            model = subject.model()
            adapter = find_detector(model)
            try:
                adapter = attach(adapter, {stage: subject.criterion(adapter, stage, loss=loss)})
            except UsageError:  # covered by the check "parts"
                continue
            criterion = adapter.criteria[stage]
            bias = criterion.loss.prior_bias(criterion.num_classes or 0, 0.02)
            try:
                forget_features(model, adapter, bias, stage)
            except UsageError as error:
                yield NotRun(str(error))
                break
            adapter.set_class_bias(bias, stage)
            with subject.seen(model, stage) as samples:
                subject.run(model, subject.batch())
            logits = samples[0].logits
            of_classes = criterion.loss.score_logits(logits.detach()).sigmoid().mean(0)
            reached = max(float(of_classes.mean()), float(of_classes.sum()), key=lambda score: -abs(score - 0.02))
            if not torch.allclose(logits, bias.expand_as(logits), atol=1e-4) or not abs(reached - 0.02) < 1e-4:
                yield Fault(
                    f"the score 0.02 of an object, and logits {bias.tolist()} without features, with "
                    f"{type(criterion.loss).__name__}",
                    f"the score {reached:.4g} and logits {logits[0].tolist()}",
                    "write the bias to every classifier of the stage, column by column, in set_class_bias",
                )


def forget_features(model: nn.Module, adapter: DetectorAdapter, bias: Tensor, stage: str) -> None:
    """Set the weights to zero in all layers with a bias that ``set_class_bias`` sets."""
    adapter.set_class_bias(bias, stage)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    adapter.set_class_bias(bias + torch.arange(1.0, len(bias) + 1), stage)
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        if not torch.equal(parameter, before[name]):
            weight = parameters.get(f"{name.removesuffix('bias')}weight")
            if weight is not None:
                torch.nn.init.zeros_(weight)


def offers(subject: DetectorSubject) -> Iterator[Finding]:
    """Fields of samples that ``offers`` names have their shapes; reading any other raises a UsageError."""
    known = {*FIELDS, "assignment", "box_loss", "predictions"} - {""}
    if unknown := sorted(subject.adapter.offers - known):
        yield Fault(f"offers of {', '.join(sorted(known))}", ", ".join(unknown), "use only these values")
    batches = []
    for stage in subject.stages:
        model = subject.attached()
        with subject.seen(model, stage) as samples, torch.no_grad():
            subject.step(model, *copy.deepcopy(subject.batch()))
        batches.append(find_detector(model).criteria[stage].in_this_step(samples[0]))
        yield from _assignment(subject, model, stage)
        yield from _predictions(subject, stage)
    for offer, fields in FIELDS.items():
        for name, shape in fields.items():
            yield from _offered(batches, name, shape, not offer or offer in subject.adapter.offers)


def _offered(
    batches: Sequence[DenseSamples], name: str, shape: Callable[[DenseSamples], Sequence[int]], expected: bool
) -> Iterator[Finding]:
    """Check a field of each stage's samples; a field that is not offered must be missing in at least one stage."""
    shapes = [_shape_of(samples, name) for samples in batches]
    if errors := [shape for shape in shapes if isinstance(shape, UsageError)]:
        if expected:
            yield Fault(f"samples.{name}, which offers announces", str(errors[0]), "set the field, or do not offer it")
        return
    if not expected:
        yield Fault(
            f"a UsageError when samples.{name} is read, because offers does not announce it",
            f"a tensor {shapes[0]}",
            "set a lit_dense.core.missing_field.MissingField that names the detector, or offer the field",
        )
        return
    for samples, seen in zip(batches, shapes, strict=True):
        if seen != list(shape(samples)):
            yield Fault(f"samples.{name} of shape {list(shape(samples))}", f"{seen}", "check the order of dimensions")


def _shape_of(samples: DenseSamples, name: str) -> list[int] | UsageError:
    try:
        return list(getattr(samples, name).shape)  # a missing field raises here
    except UsageError as error:
        return error


def _assignment(subject: DetectorSubject, model: nn.Module, stage: str) -> Iterator[Finding]:
    """Another assigner is refused exactly if the detector uses its own matching."""
    adapter = find_detector(model)
    offered = "assignment" in subject.adapter.offers
    try:
        adapter.check(stage, subject.criterion(adapter, stage, assigner="max_iou"))
    except UsageError as error:
        if offered:
            yield Fault("another assigner, which offers announces", str(error), "offer no assignment")
    else:
        if not offered:
            yield Fault("a UsageError for another assigner", "no error", "call super().check in check")


class _Reader(Assigner):
    """Reads the predictions of an image and matches nothing."""

    needs_predictions = True

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []

    def forward(self, image: AssignInput) -> Tensor:
        number = len(image.anchors)
        rows = torch.arange(min(number, 2), device=image.anchors.device)
        losses = None if image.losses is None else image.losses(rows, torch.zeros_like(rows))
        for name, value, shape in (
            ("scores", image.scores, (number, image.scores.shape[1])),
            ("boxes", image.boxes, (number, 4)),
            ("losses", losses, (len(rows),)),
        ):
            if value is None or value.shape != shape or value.requires_grad or not bool(value.isfinite().all()):
                self.wrong.append(name)
        return torch.full((number,), NEGATIVE, device=image.anchors.device)


def _predictions(subject: DetectorSubject, stage: str) -> Iterator[Finding]:
    """An assigner sees scores, boxes and losses if offers announces them."""
    if "predictions" not in subject.adapter.offers:
        return
    model, reader = subject.model(), _Reader()
    adapter = find_detector(model)
    try:
        adapter = attach(adapter, {stage: subject.criterion(adapter, stage, assigner=reader)})
        subject.step(model, *copy.deepcopy(subject.batch()))
    except UsageError as error:
        yield Fault("predictions for assigners, which offers announces", str(error), "give them to AssignInput")
        return
    if reader.wrong:
        yield Fault(
            "finite scores [K, C], boxes [K, 4] and losses [N] without gradients for assigners",
            f"other {', '.join(dict.fromkeys(reader.wrong))}",
            "give logits, deltas, box_coder, score_logits and losses to AssignInput, or do not offer predictions",
        )
