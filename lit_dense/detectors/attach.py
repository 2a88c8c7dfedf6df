"""Functions that find the detector inside a module and replace its loss by a criterion."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ..assigners import AssignerLike
from ..box_losses import BOX_LOSSES, BoxLossLike
from ..calibrators import CalibratorLike
from ..core.class_counts import ClassCounts
from ..core.class_weights import ClassWeightOn, ClassWeightsLike
from ..core.errors import UsageError, check_choice, check_range
from ..core.registry import Registry
from ..criterion import Criterion, CriterionArgs
from ..losses import LossLike
from ..normalizers import NormalizerLike
from ..weighters import WeightersLike
from .base import ATTRIBUTE, DetectorAdapter
from .columns import own_scores

_BASE: Any = DetectorAdapter  # Any, because type checkers reject an abstract class as an argument
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
    class_weights: ClassWeightsLike | None = None,
    class_weight_power: float | None = None,
    class_weight_on: ClassWeightOn | None = None,
    class_counts: ClassCounts | Sequence[float] | None = None,
    prior: float | None = None,
    stage: str | None = None,
    module: str | None = None,
    calibrator: CalibratorLike | None = None,
) -> Criterion:
    """Replace the loss of the detector inside a module; its forward and its state-dict keys do not change.

    Without further arguments, the loss is the detector's own, up to rounding.

    A loss with extra columns (``softmax``, ``seesaw``) uses the last columns of a RetinaNet's or FCOS's head: build the
    model with a ``num_classes`` that is larger by their number.

    Args:
        model: A detector that an adapter supports, or any module that contains one.
        loss: The classification loss: a name, an object, or a dict with class_path and init_args; by default the
            detector's own loss with its own weighters (SSD's hard negatives).
        box_loss: The box loss, given in the same way; by default the detector's own.
        weighters: One weighter or a list of weighters, whose weights multiply; by default none if a loss is given.
        normalizer: What the sums are divided by; by default the detector's own normalizer.
        assigner: Matches anchors and ground-truth boxes; by default the detector's own matcher.
        loss_weight: Factor of the classification term; by default the detector's own, or 1 if a loss is given.
        box_loss_weight: Factor of the box term; by default the detector's own.
        class_weights: Weights of the classes in the classification loss; ``balanced`` by the number of boxes, one
            number for each class, or numbers by class name. By default all classes have weight 1.
        class_weight_power: Power of the inverse number of boxes for ``balanced``; by default 0.5, the square root.
        class_weight_on: What class weights multiply; ``positives`` by default, or whole ``columns`` of the logits with
            their negatives.
        class_counts: Class counts of the training set, or the number of boxes of each class.
        prior: Initial score of an object, to which the classifier's bias is set; by default the bias does not change.
        stage: Name of the loss to replace, if the detector has several; by default the first (``roi`` in Faster R-CNN).
        module: Path of the detector within the model, such as ``model.student``; needed if the model has several.
        calibrator: Changes the scores in evaluation and prediction; by default none.

    Returns:
        The criterion that now computes the loss. It is not a submodule of the model: save its ``state_dict`` if its
        components have state. In a model that is patched already, it replaces the previous criterion of this stage.

    Raises:
        UsageError: If the model contains no detector, or several; if a component does not fit the detector; or if a
            loss needs class counts and has none.

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
        "class_weights": class_weights,
        "class_weight_power": class_weight_power,
        "class_weight_on": class_weight_on,
        "calibrator": calibrator,
    }
    if stage not in adapter.criteria:
        warn_of_own_losses(adapter, stage, given)
    criterion = build_criterion(adapter.defaults(stage), given, class_counts)
    adapter.check(stage, criterion)
    criterion.check_ready()  # before anything is changed
    attach(adapter, {stage: criterion})
    if prior is not None:
        set_prior(adapter, stage, criterion, prior)
    return criterion


def unpatch(model: nn.Module, module: str | None = None) -> None:
    """Restore the own losses of the detector inside a module; does nothing if none was replaced.

    Warns if the detector's own inference does not compute the scores that the criterion's loss has trained.

    Args:
        model: The model that was given to :func:`patch`.
        module: Path of the detector within the model.

    Raises:
        UsageError: If the model contains several patched detectors, or no module of this path.
    """
    if (adapter := attached(model, module)) is not None:
        detach(adapter, list(adapter.criteria.values()))


def detach(adapter: DetectorAdapter, criteria: Sequence[Criterion]) -> None:
    """Restore a detector's own losses in place of some criteria; other criteria that are attached stay.

    Warns if the detector's own inference does not compute the scores that a criterion's loss has trained.

    Args:
        adapter: The adapter that is attached.
        criteria: The criteria to remove.
    """
    name = type(adapter.detector).__name__
    removed = {stage: own for stage, own in adapter.criteria.items() if any(own is one for one in criteria)}
    for stage, criterion in removed.items():
        columns = adapter.columns(stage)
        if criterion.box_loss is not None and criterion.box_loss.box_outputs != 4:
            warnings.warn(
                f"The head of {name} gives {criterion.box_loss.box_outputs} outputs for a box, which only "
                f"{type(criterion.box_loss).__name__} reads: without it the model gives wrong boxes or fails.",
                stacklevel=2,
            )
        if criterion.step and not own_scores(columns, criterion.loss):
            warnings.warn(
                f"{name} was trained with {type(criterion.loss).__name__}, but its own inference computes "
                f"scores with a {columns.scores}, which this loss does not train: attach the loss for inference (patch "
                "the model again, or give SwapLoss to the Trainer that tests it).",
                stacklevel=2,
            )
    others = {stage: criterion for stage, criterion in adapter.criteria.items() if stage not in removed}
    adapter.remove()
    if others:
        attach(adapter, others)


def build_criterion(
    stock: CriterionArgs, given: CriterionArgs, class_counts: ClassCounts | Sequence[float] | None = None
) -> Criterion:
    """Build a criterion from the user's arguments; arguments that are None are the detector's own.

    Args:
        stock: Arguments of the criterion for the detector's own loss.
        given: The user's arguments; None means not given.
        class_counts: Class counts of the training set.
    """
    own: dict[str, Any] = dict(stock)
    native_normalizer = own.pop("normalizer", "image")
    if given.get("loss") is not None:  # these arguments belong to the detector's own loss
        own = {name: value for name, value in own.items() if name not in ("weighters", "loss_weight")}
    chosen = {name: value for name, value in given.items() if value is not None}
    criterion = Criterion(**{**own, **chosen}, class_counts=class_counts)
    criterion.set_default_normalizer(native_normalizer)
    return criterion


def attach(adapter: DetectorAdapter, criteria: Mapping[str, Criterion]) -> DetectorAdapter:
    """Replace a detector's losses by criteria; criteria of other stages that are attached already stay.

    Args:
        adapter: An adapter of the detector, attached or not.
        criteria: Criteria by stage.

    Returns:
        The adapter that is now attached.
    """
    previous = adapter.criteria if ATTRIBUTE in vars(adapter.detector) else {}
    for stage, criterion in criteria.items():
        adapter.check(stage, criterion)
    if previous:
        adapter.remove()
    attached_adapter = type(adapter)(adapter.detector)
    attached_adapter.attach({**previous, **criteria})
    return attached_adapter


def set_prior(adapter: DetectorAdapter, stage: str, criterion: Criterion, prior: float) -> None:
    """Set the classifier's bias so that the initial score of an object is ``prior``.

    ``prior`` is the score of each class, or of all classes together if they share one probability in the loss. This
    overwrites a trained bias.

    Args:
        adapter: The detector's adapter.
        stage: Name of the stage.
        criterion: The criterion of the stage; its loss defines the meaning of the columns.
        prior: Probability of an object.

    Raises:
        UsageError: If the prior is not between 0 and 1.
    """
    prior = check_range("prior", "prior", prior, 1e-6, 0.999999)
    adapter.set_class_bias(criterion.loss.prior_bias(criterion.num_classes or 0, prior), stage)


def set_box_outputs(
    model: nn.Module, box_loss: BoxLossLike, stage: str | None = None, module: str | None = None
) -> None:
    """Give the regression head of a detector the outputs that a box loss needs; call it before :func:`patch`.

    The last layer is replaced by a new one that must be trained, unless it has the right number of outputs. Create the
    optimiser afterwards.

    Args:
        model: A detector that an adapter supports, or any module that contains one.
        box_loss: The box loss: a name, an object, or a dict with class_path and init_args.
        stage: Name of the loss, if the detector has several.
        module: Path of the detector within the model.

    Raises:
        UsageError: If the head cannot give these outputs, or the model is patched with another box loss.

    Example:
        >>> from torchvision.models.detection import fcos_resnet50_fpn
        >>> model = fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3)
        >>> set_box_outputs(model, "dfl")
        >>> criterion = patch(model, box_loss="dfl")
    """
    adapter, built = find_detector(model, module), BOX_LOSSES.build(box_loss)
    stage = check_stage(adapter, stage)
    if adapter.box_outputs(stage) == built.box_outputs:
        return
    if ATTRIBUTE in vars(adapter.detector):
        raise UsageError(
            f"{type(adapter.detector).__name__} is patched with a box loss of {adapter.box_outputs(stage)} outputs: "
            "call lit_dense.unpatch(model) before."
        )
    adapter.set_box_outputs(built.box_outputs, stage)


def warn_of_own_losses(adapter: DetectorAdapter, stage: str, given: CriterionArgs) -> None:
    """Warn if a subclass computes its own loss, and the user has not named the one that replaces it.

    The detector's own loss, which is the default, is known for torchvision's classes only.

    Args:
        adapter: The adapter, not attached.
        stage: Name of the stage.
        given: The user's arguments; None means not given.
    """
    owners = adapter.loss_owners(stage)
    for argument, modules in owners.items():
        own = [m for m in modules if not _module_of(m, "compute_loss").startswith("torchvision.")]
        if own and given.get(argument) is None:
            stock = dict(adapter.defaults(stage)).get(argument)
            warnings.warn(
                f"{type(own[0]).__name__} has its own compute_loss, which lit_dense replaces by torchvision's "
                f"{argument} ({_name_of(stock)}): name {argument} if you want another one.",
                stacklevel=3,
            )


def warn_of_copies(model: nn.Module, adapter: DetectorAdapter, stage: str, criterion: Criterion) -> None:
    """Warn if another detector of the class, such as a teacher, keeps scores that the criterion's loss does not train.

    Args:
        model: The module that contains the detectors.
        adapter: The adapter that is attached.
        stage: Name of the stage.
        criterion: The criterion of the stage.
    """
    columns, own = adapter.columns(stage), adapter.detector
    if own_scores(columns, criterion.loss):
        return
    others = {path: other for path, (other, _) in detectors_inside(model).items() if type(other) is type(own)}
    if paths := [path for path, other in others.items() if other is not own and attached(other) is None]:
        loss = type(criterion.loss).__name__
        warnings.warn(
            f"The {type(own).__name__} {', '.join(map(repr, paths))} computes scores with a {columns.scores}, which "
            f"{loss} does not train. If it takes over the weights that {loss} trains, as a teacher does, call "
            "lit_dense.patch on it with the same arguments.",
            stacklevel=3,
        )


def _module_of(module: nn.Module, method: str) -> str:
    """Return the name of the Python module that defines a method; torchvision's if there is no such method."""
    return str(getattr(getattr(type(module), method, None), "__module__", "torchvision."))


def _name_of(spec: Any) -> str:
    return str(spec["class_path"] if isinstance(spec, Mapping) else spec)


def check_stage(adapter: DetectorAdapter, stage: str | None) -> str:
    """Return the name of the stage; the first stage of the adapter if the name is None.

    Raises:
        UsageError: If the detector has no such stage.
    """
    if stage is None:
        return adapter.stages[0]
    if adapter.stages == ("",) and stage:
        raise UsageError(f"{type(adapter.detector).__name__} has one loss and no stages: leave stage={stage!r} out.")
    return check_choice(type(adapter.detector).__name__, "stage", stage, adapter.stages)


def attached(model: nn.Module, module: str | None = None) -> DetectorAdapter | None:
    """Return the adapter that is attached to the detector inside a module; None if there is none.

    Args:
        model: Any module that contains a detector.
        module: Path of the detector within the model.

    Raises:
        UsageError: If adapters are attached to several detectors, or no module has this path.
    """
    adapters = {
        name or "the module itself": vars(inner)[ATTRIBUTE]
        for name, inner in _submodule(model, module).named_modules()
        if ATTRIBUTE in vars(inner)
    }
    if len(adapters) > 1:
        names = ", ".join(adapters)
        raise UsageError(f"{type(model).__name__} contains several detectors: {names}. Name one by module.")
    return next(iter(adapters.values()), None)


def adapters_with(model: nn.Module, criterion: Criterion | None) -> list[DetectorAdapter]:
    """Return the adapters inside a module through which this criterion computes a loss.

    A copy of a patched detector has a copy of the criterion, so its adapter is not among them.

    Args:
        model: Any module.
        criterion: The criterion; None for an empty list.
    """
    found = [vars(inner)[ATTRIBUTE] for inner in model.modules() if ATTRIBUTE in vars(inner)]
    return [adapter for adapter in found if any(own is criterion for own in adapter.criteria.values())]


def find_detector(model: nn.Module, module: str | None = None) -> DetectorAdapter:
    """Return the adapter of the only detector inside a module.

    Args:
        model: Any module that contains a detector.
        module: Path of the detector within the model; needed if the model contains several.

    Raises:
        UsageError: If there is no detector, or more than one; the message lists what the model contains.
    """
    if not isinstance(model, nn.Module):
        given = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise UsageError(f"A detector, or a module that contains one, is needed, not {given}.")
    detectors = detectors_inside(_submodule(model, module))
    if len(detectors) == 1:
        detector, adapter_class = next(iter(detectors.values()))
        present = vars(detector).get(ATTRIBUTE)
        return present if isinstance(present, DetectorAdapter) else adapter_class(detector)
    if detectors:
        listed = ", ".join(f"{name or 'the module itself'} ({type(d).__name__})" for name, (d, _) in detectors.items())
        raise UsageError(
            f"{type(model).__name__} contains {len(detectors)} detectors: {listed}. Pass one of them, or name it by "
            "module=."
        )
    inside = ", ".join(f"{name}: {type(m).__name__}" for name, m in model.named_children()) or "no submodules"
    known = ", ".join(sorted(DETECTORS.points))
    raise UsageError(
        f"{type(model).__name__} contains no detector that lit_dense knows ({known}). It contains {inside}. For a head "
        "of your own call a loss with logits and labels, or build DenseSamples.of(...)."
    )


def detectors_inside(model: nn.Module) -> dict[str, tuple[nn.Module, type[DetectorAdapter]]]:
    """Return the detectors inside a module with the class of their adapter, by path; nested ones are ignored."""
    adapters = [DETECTORS.load(name) for name in DETECTORS.points]
    detectors: dict[str, tuple[nn.Module, type[DetectorAdapter]]] = {}
    for name, inner in model.named_modules():
        if any(outer == "" or name.startswith(f"{outer}.") for outer in detectors):
            continue
        paths = {f"{base.__module__}.{base.__qualname__}" for base in type(inner).__mro__}
        for adapter in adapters:
            if not paths.isdisjoint(adapter.detectors) and adapter.accepts(inner):
                detectors[name] = (inner, adapter)
                break
    return detectors


def _submodule(model: nn.Module, path: str | None) -> nn.Module:
    if path is None:
        return model
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        known = ", ".join(detectors_inside(model)) or "none"
        raise UsageError(f"{type(model).__name__} has no module {path!r}. Detectors in it: {known}.") from error
