"""The way in: finds the detector inside any module and lets a criterion compute its loss."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ..assigners import AssignerLike
from ..box_losses import BoxLossLike
from ..core.class_counts import ClassCounts
from ..core.errors import UsageError, check_choice, check_range
from ..core.registry import Registry
from ..criterion import Criterion, CriterionArgs
from ..losses import LossLike
from ..normalizers import NormalizerLike
from ..weighters import WeightersLike
from .base import ATTRIBUTE, DetectorAdapter, own_scores

_BASE: Any = DetectorAdapter  # abstract, which a type checker refuses where a class is expected
DETECTORS: Registry[DetectorAdapter] = Registry("lit_dense.detectors", "detector", _BASE)
"""Adapters by name."""


def patch(
    model: nn.Module,
    loss: LossLike | None = None,
    box_loss: BoxLossLike | None = None,
    weighters: WeightersLike | None = None,
    normalizer: NormalizerLike | None = None,
    assigner: AssignerLike | None = None,
    loss_weight: float | None = None,
    box_loss_weight: float | None = None,
    class_counts: ClassCounts | Sequence[float] | None = None,
    prior: float | None = None,
    stage: str | None = None,
    module: str | None = None,
) -> Criterion:
    """Give the detector inside a module another loss; forward, state-dict keys and everything else stay.

    With nothing but the model, the loss is the detector's own, to rounding.

    Args:
        model: A detector that an adapter knows, or any module that contains one.
        loss: The classification loss: a name, an object, or a dict with class_path and init_args; by default the
            detector's own, with its weighters (SSD's hard negatives).
        box_loss: The box loss; by default the detector's own.
        weighters: One weighter or a list of them, whose weights multiply; none by default where a loss is named.
        normalizer: What the sums are divided by; by default the detector's own.
        assigner: Matches anchors and ground truths; by default the detector's own matcher.
        loss_weight: Factor of the classification term.
        box_loss_weight: Factor of the box term.
        class_counts: Class frequencies of the training set, or the number of boxes of each class.
        prior: Probability of an object that the classifier's bias is set to; by default the bias stays what it is.
        stage: Which of the detector's losses; by default the first, which is ``roi`` for Faster R-CNN.
        module: Path of the detector within the model, such as ``model.student``, where it contains several.

    A loss with columns of its own (``softmax``, ``seesaw``) takes them from the end of a RetinaNet's or FCOS's head:
    build the model with so many more ``num_classes``.

    Returns:
        The criterion that now computes the loss. It is no submodule: save its ``state_dict`` if its parts have state.
        A model that was patched before gets the new criterion in place of the old one of this stage.

    Raises:
        UsageError: If there is no detector inside, or several; if a part does not fit the detector; or if a loss needs
            class counts and has none.

    Example:
        >>> from torchvision.models.detection import fcos_resnet50_fpn
        >>> model = fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3)
        >>> criterion = patch(model, loss="ghm")
        >>> unpatch(model)
    """
    adapter = find_detector(model, module)
    stage = check_stage(adapter, stage)
    given: CriterionArgs = {
        "loss": loss,
        "box_loss": box_loss,
        "weighters": weighters,
        "normalizer": normalizer,
        "assigner": assigner,
        "loss_weight": loss_weight,
        "box_loss_weight": box_loss_weight,
    }
    criterion = build_criterion(adapter.defaults(stage), given, class_counts)
    adapter.check(stage, criterion)
    criterion.check_ready()  # before anything is changed
    attach(adapter, {stage: criterion})
    if prior is not None:
        set_prior(adapter, stage, criterion, prior)
    return criterion


def unpatch(model: nn.Module, module: str | None = None) -> None:
    """Give the detector inside a module its own losses back; does nothing where none was replaced.

    Warns where a loss was trained whose scores the detector's own inference does not make.

    Args:
        model: What was given to :func:`patch`.
        module: Path of the detector within the model.

    Raises:
        UsageError: If there is no detector inside, or several.
    """
    if (adapter := attached(model, module)) is None:
        return
    name = type(adapter.detector).__name__
    for stage, criterion in adapter.criteria.items():
        columns = adapter.columns(stage)
        if criterion.step and not own_scores(columns, criterion.loss):
            warnings.warn(
                f"{name} was trained with {type(criterion.loss).__name__}, but its own inference takes a "
                f"{columns.scores} for scores, which this loss does not train: detect with the loss in place (patch "
                "the model again, or give SwapLoss to the Trainer that tests it).",
                stacklevel=2,
            )
    adapter.remove()


def build_criterion(
    stock: CriterionArgs, given: CriterionArgs, class_counts: ClassCounts | Sequence[float] | None = None
) -> Criterion:
    """A criterion from what was chosen, and the detector's own for the rest.

    Args:
        stock: The detector's own arguments.
        given: Arguments of the criterion; None where nothing was chosen.
        class_counts: Class frequencies of the training set.
    """
    own: dict[str, Any] = dict(stock)
    native_normalizer = own.pop("normalizer", "image")
    if given.get("loss") is not None:  # what belongs to the detector's own loss goes with it
        own = {name: value for name, value in own.items() if name not in ("weighters", "loss_weight")}
    chosen = {name: value for name, value in given.items() if value is not None}
    criterion = Criterion(**{**own, **chosen}, class_counts=class_counts)
    criterion.set_default_normalizer(native_normalizer)
    return criterion


def attach(adapter: DetectorAdapter, criteria: Mapping[str, Criterion]) -> DetectorAdapter:
    """Let criteria compute a detector's losses; stages that are attached already and not named stay.

    Args:
        adapter: The detector's adapter, attached or not.
        criteria: Criteria by stage.

    Returns:
        The adapter that is attached now.
    """
    before = adapter.criteria if ATTRIBUTE in vars(adapter.detector) else {}
    for stage, criterion in criteria.items():
        adapter.check(stage, criterion)
    if before:
        adapter.remove()
    fresh = type(adapter)(adapter.detector)
    fresh.attach({**before, **criteria})
    return fresh


def set_prior(adapter: DetectorAdapter, stage: str, criterion: Criterion, prior: float) -> None:
    """Set the classifier's bias such that an object has the score ``prior`` before training.

    That is the score of each class, or of all together where the loss has them share one probability.

    Args:
        adapter: The detector's adapter; a bias that was trained is overwritten.
        stage: The stage.
        criterion: Its loss decides what the columns mean.
        prior: Probability of an object.

    Raises:
        UsageError: If the prior is not between 0 and 1.
    """
    prior = check_range("prior", "prior", prior, 1e-6, 0.999999)
    adapter.set_class_bias(criterion.loss.prior_bias(criterion.num_classes or 0, prior), stage)


def check_stage(adapter: DetectorAdapter, stage: str | None) -> str:
    """The stage, the adapter's first where none is named.

    Raises:
        UsageError: If the detector has no such stage.
    """
    if stage is None:
        return adapter.stages[0]
    if adapter.stages == ("",) and stage:
        raise UsageError(f"{type(adapter.detector).__name__} has one loss and no stages: leave stage={stage!r} out.")
    return check_choice(type(adapter.detector).__name__, "stage", stage, adapter.stages)


def attached(model: nn.Module, module: str | None = None) -> DetectorAdapter | None:
    """The adapter of the detector inside a module whose loss is a criterion's; None where it is the detector's own.

    Args:
        model: Any module that contains a detector.
        module: Path of the detector within the model.

    Raises:
        UsageError: If there are several.
    """
    found = {
        name or "the module itself": vars(inner)[ATTRIBUTE]
        for name, inner in _within(model, module).named_modules()
        if ATTRIBUTE in vars(inner)
    }
    if len(found) > 1:
        raise UsageError(f"{type(model).__name__} contains several detectors: {', '.join(found)}. Name one by module.")
    return next(iter(found.values()), None)


def find_detector(model: nn.Module, module: str | None = None) -> DetectorAdapter:
    """The adapter of the one detector inside a module.

    Args:
        model: Any module that contains a detector.
        module: Path of the detector within the model, where it contains several.

    Raises:
        UsageError: If there is none, or more than one; the message lists what was found.
    """
    found = detectors_inside(_within(model, module))
    if len(found) == 1:
        detector, adapter = next(iter(found.values()))
        present = vars(detector).get(ATTRIBUTE)
        return present if isinstance(present, DetectorAdapter) else adapter(detector)
    if found:
        kinds = ", ".join(f"{name or 'the module itself'} ({type(d).__name__})" for name, (d, _) in found.items())
        raise UsageError(
            f"{type(model).__name__} contains {len(found)} detectors: {kinds}. Pass one of them, or name it by module=."
        )
    inside = ", ".join(f"{name}: {type(m).__name__}" for name, m in model.named_children()) or "no submodules"
    known = ", ".join(sorted(DETECTORS.points))
    raise UsageError(
        f"{type(model).__name__} contains no detector that lit_dense knows ({known}). It contains {inside}. For a head "
        "of your own call a loss with logits and labels, or build DenseSamples.of(...)."
    )


def detectors_inside(model: nn.Module) -> dict[str, tuple[nn.Module, type[DetectorAdapter]]]:
    """Every detector inside a module that an adapter knows, by path; those inside of another are left out."""
    adapters = [DETECTORS.load(name) for name in DETECTORS.points]
    found: dict[str, tuple[nn.Module, type[DetectorAdapter]]] = {}
    for name, inner in model.named_modules():
        if any(outer == "" or name.startswith(f"{outer}.") for outer in found):
            continue
        paths = {f"{base.__module__}.{base.__qualname__}" for base in type(inner).__mro__}
        for adapter in adapters:
            if not paths.isdisjoint(adapter.detectors) and adapter.accepts(inner):
                found[name] = (inner, adapter)
                break
    return found


def _within(model: nn.Module, path: str | None) -> nn.Module:
    if path is None:
        return model
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        known = ", ".join(detectors_inside(model)) or "none"
        raise UsageError(f"{type(model).__name__} has no module {path!r}. Detectors in it: {known}.") from error
