"""The base class of detector adapters, each of which connects the criterion to one class of detectors."""

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..core.errors import UsageError
from ..core.nan_guard import NaNGuard
from ..core.samples import DenseSamples
from ..criterion import Criterion, CriterionArgs
from .columns import Columns

Terms = dict[str, Tensor]
Detections = list[dict[str, Tensor]]
ATTRIBUTE = "_lit_dense"
"""Attribute of a detector with its attached adapter; it is not part of the state dict."""


class DetectorAdapter(ABC):
    """Base class of adapters, which connect criteria to the losses of one class of detectors.

    Subclass it for a class of detectors, and register the subclass in the entry-point group ``lit_dense.detectors``.
    ``install`` replaces methods with :meth:`override` and observes modules with :meth:`hook`. :meth:`remove` undoes
    both, and both survive ``copy.deepcopy`` and pickle. A criterion that is built from ``defaults`` must give the
    detector's own loss terms and gradients up to rounding. :func:`lit_dense.testing.check_detector` tests all this.

    Attributes:
        detectors: Supported classes as ``module.Class``. They are compared by name, so that nothing is imported.
        stages: Names of the detector's losses. The first one is the default.
        offers: What the adapter provides: ``boxes``, ``deltas``, ``anchors`` and ``geometry`` (fields of the samples),
            ``assignment`` (matching can be replaced), ``predictions`` (assigners see scores, boxes and losses),
            ``box_loss`` (the box loss can be replaced).
        knows_image_sizes: Whether the samples tell the sizes of the images; always with ``geometry``.
        calibrated_stages: Stages whose scores a calibrator can change.
        other_score: What the detector multiplies the class scores by, such as centre-ness; empty for nothing.
        stock: Criterion arguments of each stage for the detector as its authors build it. ``LitDetector`` reads them
            before the detector exists. ``defaults`` are the arguments for an existing detector.
        criteria: The criterion of each stage while the adapter is attached.
        batch_is_checked: Whether the caller has already checked formats, boxes and labels of the batch.

    Args:
        detector: The detector; the adapter has only a weak reference to it.
    """

    detectors: ClassVar[tuple[str, ...]]
    stages: ClassVar[tuple[str, ...]] = ("",)
    offers: ClassVar[frozenset[str]] = frozenset()
    knows_image_sizes: ClassVar[bool] = False
    calibrated_stages: ClassVar[frozenset[str]] = frozenset()
    other_score: ClassVar[str] = ""
    stock: ClassVar[Mapping[str, CriterionArgs]] = {}

    def __init__(self, detector: nn.Module) -> None:
        self._detector = weakref.ref(detector)
        self.criteria: dict[str, Criterion] = {}
        self.nan_guard = NaNGuard()
        self.batch_is_checked = False
        self._overrides: list[tuple[weakref.ref[Any], str]] = []
        self._hooks: list[Any] = []

    @classmethod
    def accepts(cls, module: nn.Module) -> bool:
        """Whether the adapter supports this module, which is an instance of one of ``detectors``."""
        return True

    @property
    def detector(self) -> Any:
        """The detector."""
        return self._detector()

    @abstractmethod
    def columns(self, stage: str) -> Columns:
        """Return the meaning of the columns of the class logits.

        Args:
            stage: Name of the stage.
        """

    @abstractmethod
    def defaults(self, stage: str) -> CriterionArgs:
        """Return the arguments of a criterion with the loss terms and gradients of the detector's own loss.

        Args:
            stage: Name of the stage.
        """

    @abstractmethod
    def install(self) -> None:
        """Replace the detector's loss by :meth:`terms`, with overrides and hooks."""

    def loss_owners(self, stage: str) -> Mapping[str, Sequence[nn.Module]]:
        """Return the modules whose ``compute_loss`` a ``loss`` and a ``box_loss`` replace; empty if there are none.

        Args:
            stage: Name of the stage.
        """
        return {}

    def set_class_bias(self, bias: Tensor, stage: str) -> None:
        """Set the classifier's bias, in the order of the loss's columns.

        Args:
            bias: Bias of each column [C + extra_logits].
            stage: Name of the stage.
        """
        raise UsageError(f"{type(self.detector).__name__}: the bias of its classifier cannot be set.")

    def class_bias(self, stage: str) -> Tensor:
        """Return the classifier's bias in the order of the loss's columns, one row per anchor of a cell [N, C + extra].

        Args:
            stage: Name of the stage.
        """
        raise UsageError(f"{type(self.detector).__name__}: the bias of its classifier cannot be read.")

    def box_outputs(self, stage: str) -> int:
        """Return the number of outputs of the head for the box of an anchor.

        Args:
            stage: Name of the stage.
        """
        return 4

    def can_set_box_outputs(self, stage: str) -> bool:
        """Whether :meth:`set_box_outputs` can change the head of this detector.

        Args:
            stage: Name of the stage.
        """
        return False

    def set_box_outputs(self, number: int, stage: str) -> None:
        """Replace the last layer of the regression head by a new one with another number of outputs of an anchor.

        Args:
            number: Number of outputs of the head for the box of an anchor.
            stage: Name of the stage.

        Raises:
            UsageError: If the adapter cannot change the head.
        """
        raise UsageError(f"{type(self.detector).__name__}: the outputs of its regression head cannot be changed.")

    def limit_outputs(
        self, score_thresh: float, nms_thresh: float, topk_candidates: int, detections_per_img: int
    ) -> None:
        """Set the limits of the detector's post-processing.

        Args:
            score_thresh: Smallest score of a detection.
            nms_thresh: IoU threshold of non-maximum suppression within a class.
            topk_candidates: Largest number of candidates of each pyramid level, if the detector has such a limit.
            detections_per_img: Largest number of detections of an image.
        """
        raise UsageError(f"{type(self.detector).__name__}: its thresholds cannot be set.")

    def losses_and_detections(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> tuple[Terms, Detections]:
        """Return the loss terms and the detections of one forward pass in evaluation mode.

        Args:
            images: Images in [0, 1], each [3, H, W].
            targets: Targets in the format of the detector.
        """
        raise UsageError(f"{type(self.detector).__name__} gives losses or detections, not both at once.")

    @contextmanager
    def checked_batch(self, num_classes: int) -> Iterator[None]:
        """Skip the checks of formats, boxes and labels within this context, because the caller has done them.

        Args:
            num_classes: Number of classes that the caller allows. If the head has fewer, the batch is checked again.
        """
        criterion = self.criteria.get(self.stages[0])
        self.batch_is_checked = criterion is not None and (criterion.num_classes or 0) >= num_classes
        try:
            yield
        finally:
            self.batch_is_checked = False

    def accelerate(self) -> None:  # noqa: B027  # most adapters have nothing to replace
        """Replace methods of the detector by faster ones with the same results; by default none."""

    def terms(self, stage: str, samples: DenseSamples, targets: Sequence[Mapping[str, Any]]) -> Terms:
        """Compute the criterion's loss terms of a batch, under the detector's names.

        Args:
            stage: Name of the stage.
            samples: The batch.
            targets: The detector's targets; an error message names their ``image_id``.

        Raises:
            NonFiniteLossError: If a term is NaN or infinite.
        """
        with torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext():
            criterion = self.criteria[stage].to(samples.device)  # tensors that training can change later
        terms: Terms = {self.term_name(stage, name): value for name, value in criterion(samples).items()}
        self.nan_guard(terms, targets, criterion, stage)
        return terms

    def term_name(self, stage: str, name: str) -> str:
        """Return the detector's name of a loss term; by default the criterion's name.

        Args:
            stage: Name of the stage.
            name: The criterion's name of the term.
        """
        return name

    def override(self, owner: nn.Module, name: str, method: str) -> None:
        """Replace a method of a module by a method of the adapter.

        The method becomes an attribute of the module. The module keeps its class and its state dict, copies and pickles
        of the detector get an adapter of their own, and deleting the attribute restores the module's method.

        Args:
            owner: The module.
            name: Name of the module's method.
            method: Name of the adapter's method, which gets the same arguments.

        Raises:
            UsageError: If the method of this module has already been replaced.
        """
        if name in vars(owner):
            raise UsageError(
                f"{type(owner).__name__}.{name} has been replaced already, by {vars(owner)[name]!r}: undo that first."
            )
        setattr(owner, name, getattr(self, method))
        self._overrides.append((weakref.ref(owner), name))

    def hook(self, module: nn.Module, function: Callable[..., Any], pre: bool = False, **options: Any) -> None:
        """Register a forward hook, or a forward pre-hook.

        Args:
            module: The module.
            function: A method of the adapter.
            pre: Whether to register a pre-hook, which is called before the module's forward.
            options: Options of PyTorch's ``register_forward_hook``, such as ``with_kwargs``.
        """
        register = module.register_forward_pre_hook if pre else module.register_forward_hook
        self._hooks.append(register(function, **options))

    def attach(self, criteria: Mapping[str, Criterion]) -> None:
        """Replace the detector's losses by criteria.

        Args:
            criteria: Criteria by stage; a stage without a criterion keeps its own loss.

        Raises:
            UsageError: If a criterion does not fit the detector.
        """
        for stage, criterion in criteria.items():
            self.check(stage, criterion)
        self.criteria = dict(criteria)
        vars(self.detector)[ATTRIBUTE] = self
        try:
            self.override(self.detector, "__prepare_scriptable__", "refuse_scripting")
            self.install()
            self.accelerate()
        except BaseException:
            self.remove()
            raise

    def refuse_scripting(self) -> None:
        """Reject TorchScript, which would fail with a message about an unknown type.

        Raises:
            UsageError: Always.
        """
        cure = "call lit_dense.unpatch(model) before, which keeps the weights, or use"
        losses = [
            criterion.loss for stage, criterion in self.criteria.items() if self.columns(stage).background is None
        ]
        box_losses = [criterion.box_loss for criterion in self.criteria.values() if criterion.box_loss is not None]
        # an unpatched head would treat extra columns as classes
        if extra := next((loss for loss in losses if loss.extra_logits), None):
            cure = f"{type(extra).__name__} has columns that only a patched model reads, so use"
        elif own := next((loss for loss in box_losses if loss.box_outputs != 4), None):
            cure = f"{type(own).__name__} has box outputs that only a patched model reads, so use"
        raise UsageError(
            f"torch.jit.script cannot compile a patched model: {cure} torch.jit.trace or torch.onnx.export."
        )

    def remove(self) -> None:
        """Restore the detector's own losses: remove all overrides and hooks."""
        for reference, name in self._overrides:
            owner = reference()  # None if the module does not exist any more
            if owner is not None and getattr(vars(owner).get(name), "__self__", None) is self:
                delattr(owner, name)
        for handle in self._hooks:
            handle.remove()
        self._overrides, self._hooks = [], []
        vars(self.detector).pop(ATTRIBUTE, None)

    def check(self, stage: str, criterion: Criterion) -> None:
        """Reject a criterion that does not fit the detector, and prepare it for the number of classes.

        Args:
            stage: Name of the stage.
            criterion: The criterion for this stage.

        Raises:
            UsageError: If the criterion does not fit.
        """
        name, columns, loss = type(self.detector).__name__, self.columns(stage), criterion.loss
        extra, background = loss.extra_logits, int(columns.background is not None)
        if columns.background is None and columns.classes <= extra:
            raise UsageError(
                f"{type(loss).__name__} has {extra} columns besides those of classes, but the head has only "
                f"{columns.classes}: build the model with num_classes={columns.classes + extra}."
            )
        if background and extra > background:
            raise UsageError(
                f"{type(loss).__name__} needs {extra} columns besides those of classes, but {name} has one, of "
                "background: take another loss."
            )
        if criterion.box_loss is None and "box_loss" in self.offers:
            raise UsageError(f"{name} needs a box loss: give box_loss.")
        if criterion.box_loss is not None and "box_loss" not in self.offers:
            raise UsageError(
                f"{name} keeps its own loss of boxes, and {type(criterion.box_loss).__name__} cannot replace it: "
                "leave box_loss out."
            )
        if criterion.box_loss is not None and criterion.box_loss.space == "deltas" and "deltas" not in self.offers:
            raise UsageError(
                f"{type(criterion.box_loss).__name__} compares deltas of anchors, but {name} predicts boxes."
            )
        self._check_box_outputs(stage, criterion)
        self._check_fields(criterion)
        if criterion.matcher is not None and "assignment" not in self.offers:
            owners = [w for w in criterion.weighters if w.assigner is not None]
            of_owner = f" of {type(owners[0]).__name__}" if owners else ""
            raise UsageError(
                f"{name} matches predictions and ground truths itself{f' (stage {stage!r})' if stage else ''}, and "
                f"{type(criterion.matcher).__name__}{of_owner} cannot replace its matcher: leave it out."
            )
        if criterion.calibrator is not None and stage not in self.calibrated_stages:
            raise UsageError(
                f"{name} computes its scores itself{f' (stage {stage!r})' if stage else ''}, and "
                f"{type(criterion.calibrator).__name__} cannot change them: leave calibrator out."
            )
        if criterion.matcher is not None and criterion.matcher.needs_predictions and "predictions" not in self.offers:
            raise UsageError(
                f"{name} matches before it predicts, and {type(criterion.matcher).__name__} reads predictions: take "
                "another assigner, such as atss."
            )
        criterion.prepare(columns.classes - (0 if background else extra))

    def _check_box_outputs(self, stage: str, criterion: Criterion) -> None:
        """Reject a box loss that needs other outputs than the head gives."""
        loss, given = criterion.box_loss, str(self.box_outputs(stage))
        if loss is None:
            return
        if loss.box_outputs == int(given):
            if loss.box_coder is None or self.can_set_box_outputs(stage):
                return
            given += ", which are deltas"  # and the loss has a coder of its own
        name = type(self.detector).__name__
        of_stage = f" (stage {stage!r})" if stage else ""
        cure = "take another box loss, such as giou; RetinaNet and FCOS with torchvision's heads can change it"
        if self.can_set_box_outputs(stage):
            cure = (
                "call lit_dense.detectors.set_box_outputs(model, box_loss) before the optimiser is created, and train "
                "the new layer; or take a box loss that reads these outputs"
            )
        raise UsageError(
            f"{type(loss).__name__} needs {loss.box_outputs} outputs for the box of an anchor, but the head of "
            f"{name}{of_stage} gives {given}: {cure}."
        )

    def _check_fields(self, criterion: Criterion) -> None:
        """Reject components that read fields which the samples of this detector do not have."""
        name = type(self.detector).__name__
        knows_sizes = self.knows_image_sizes or "geometry" in self.offers
        if criterion.box_loss is not None and criterion.box_loss.reads_image_sizes and not knows_sizes:
            raise UsageError(
                f"{name} does not tell the sizes of images, which {type(criterion.box_loss).__name__} reads: take "
                "another box loss."
            )
        of_anchors = [w for w in criterion.weighters if w.reads_anchors]
        if of_anchors and "anchors" not in self.offers:
            raise UsageError(
                f"{name} has no anchors, and {type(of_anchors[0]).__name__} weights them by their boxes: leave it out."
            )

    def __getstate__(self) -> dict[str, Any]:
        overrides = [(owner, name) for reference, name in self._overrides if (owner := reference()) is not None]
        # torch cannot copy the handle of a hook if its module does not exist any more
        hooks = [handle for handle in self._hooks if handle.hooks_dict_ref() is not None]
        return {**self.__dict__, "_detector": self.detector, "_overrides": overrides, "_hooks": hooks}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._detector = weakref.ref(state["_detector"])
        self._overrides = [(weakref.ref(owner), name) for owner, name in state["_overrides"]]
