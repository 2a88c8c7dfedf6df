"""The base of detector adapters: what the package needs to know of one class of detectors."""

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ..core.errors import UsageError
from ..core.nan_guard import NaNGuard
from ..core.samples import DenseSamples
from ..criterion import Criterion, CriterionArgs
from ..losses import DenseLoss

Terms = dict[str, Tensor]
Detections = list[dict[str, Tensor]]
ATTRIBUTE = "_lit_dense"
"""Attribute of a detector that holds its adapter while it is attached; no state dict has it."""


@dataclass(frozen=True)
class Columns:
    """What the columns of a stage's class logits are.

    Args:
        classes: C, object classes.
        background: Where the column of background is, None if there is none.
        scores: What the detector's own inference makes scores with.
        first_label: Label of the first class in the detector's targets.
    """

    classes: int
    background: Literal["first", "last"] | None = None
    scores: Literal["sigmoid", "softmax"] = "sigmoid"
    first_label: int = 0


class Override:
    """Called in place of a method of a module, as an attribute of that module.

    So the module keeps its class and its state dict, copies and pickles take the attribute along, and deleting it gives
    the method back.

    Args:
        adapter: The adapter whose method is called instead.
        method: Name of that method.
    """

    def __init__(self, adapter: "DetectorAdapter", method: str) -> None:
        self._adapter, self._method = weakref.ref(adapter), method

    @property
    def adapter(self) -> "DetectorAdapter | None":
        """The adapter whose method is called instead."""
        return self._adapter()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the adapter's method returns."""
        return getattr(self._adapter(), self._method)(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {"adapter": self._adapter(), "method": self._method}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._adapter, self._method = weakref.ref(state["adapter"]), state["method"]


class DetectorAdapter(ABC):
    """Ties a criterion, or one for each stage, to a detector of one class.

    Subclass it for a class of detectors, and register the subclass in the entry-point group ``lit_dense.detectors``.
    ``install`` replaces methods by :meth:`override` and listens by :meth:`hook`; both are undone by :meth:`remove`,
    and survive ``copy.deepcopy`` and pickle. With ``defaults`` the detector must give its own loss terms and gradients
    to rounding: :func:`lit_dense.testing.check_detector` tests that, and the rest.

    Attributes:
        detectors: Classes of detectors as ``module.Class``; looked for by name, so that nothing is imported.
        stages: Names of the losses. The first is the one that is meant where no stage is named.
        offers: What samples of the detector have: ``boxes``, ``deltas`` and ``anchors``, ``geometry``, ``assignment``
            (matching can be replaced), ``box_loss`` (the box loss can be replaced).
        stock: Arguments of each stage's criterion for the detector as its authors build it, of which no detector need
            be there: where :class:`~lit_dense.LitDetector` builds it. ``defaults`` are those of a detector that is.
        criteria: The criterion of each stage while the adapter is attached.
        batch_is_checked: Whether formats, boxes and labels of the batch have been checked before.

    Args:
        detector: The detector; referred to weakly.
    """

    detectors: ClassVar[tuple[str, ...]]
    stages: ClassVar[tuple[str, ...]] = ("",)
    offers: ClassVar[frozenset[str]] = frozenset()
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
        """Whether the adapter knows this module, whose class or base class is one of ``detectors``."""
        return True

    @property
    def detector(self) -> Any:
        """The detector."""
        return self._detector()

    @abstractmethod
    def columns(self, stage: str) -> Columns:
        """What the columns of the class logits are."""

    @abstractmethod
    def defaults(self, stage: str) -> CriterionArgs:
        """Arguments of the criterion whose loss terms and gradients are the detector's own."""

    @abstractmethod
    def install(self) -> None:
        """Let the detector's loss be :meth:`terms` of samples."""

    def set_class_bias(self, bias: Tensor, stage: str) -> None:
        """Set the classifier's bias, in the order of the loss's columns.

        Args:
            bias: Bias of each column [C + extra_logits].
            stage: The stage.
        """
        raise UsageError(f"{type(self.detector).__name__}: the bias of its classifier cannot be set.")

    def class_bias(self, stage: str) -> Tensor:
        """The classifier's bias, in the order of the loss's columns, a row for each anchor of a cell [N, C + extra].

        Args:
            stage: The stage.
        """
        raise UsageError(f"{type(self.detector).__name__}: the bias of its classifier cannot be read.")

    def limit_outputs(
        self, score_thresh: float, nms_thresh: float, topk_candidates: int, detections_per_img: int
    ) -> None:
        """Set which of its outputs the detector gives as detections.

        Args:
            score_thresh: Smallest score.
            nms_thresh: IoU from which of two detections of a class only the better is kept.
            topk_candidates: Most boxes of each pyramid level from which detections are chosen, where it has that.
            detections_per_img: Most detections of an image.
        """
        raise UsageError(f"{type(self.detector).__name__}: its thresholds cannot be set.")

    def losses_and_detections(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> tuple[Terms, Detections]:
        """Loss terms and detections of one forward pass, of a detector in evaluation mode.

        Args:
            images: Images in [0, 1], each [3, H, W].
            targets: As the detector takes them.
        """
        raise UsageError(f"{type(self.detector).__name__} gives losses or detections, not both at once.")

    @contextmanager
    def checked_batch(self) -> Iterator[None]:
        """Trust the batch within this context: the caller has checked formats, boxes and labels already."""
        self.batch_is_checked = True
        try:
            yield
        finally:
            self.batch_is_checked = False

    def accelerate(self) -> None:  # noqa: B027  # most adapters have nothing to replace
        """Replace methods by faster ones with the same results."""

    def terms(self, stage: str, samples: DenseSamples, targets: Sequence[Mapping[str, Any]]) -> Terms:
        """The criterion's loss terms of a batch, under the detector's names.

        Args:
            stage: The stage.
            samples: The batch.
            targets: The detector's targets, whose ``image_id`` an error names.

        Raises:
            NonFiniteLossError: If a term is NaN or infinite.
        """
        criterion = self.criteria[stage].to(samples.device)
        terms: Terms = {self.term_name(stage, name): value for name, value in criterion(samples).items()}
        self.nan_guard(terms, targets, criterion, stage)
        return terms

    def term_name(self, stage: str, name: str) -> str:
        """The detector's name of a term of the criterion; by default they are the same.

        Args:
            stage: The stage.
            name: The criterion's name of it.
        """
        return name

    def override(self, owner: nn.Module, name: str, method: str) -> None:
        """Call a method of the adapter in place of a method of a module.

        Args:
            owner: The module.
            name: Its method.
            method: The adapter's method, which gets the same arguments.

        Raises:
            UsageError: If something else has replaced the method of this module already.
        """
        if name in vars(owner):
            raise UsageError(
                f"{type(owner).__name__}.{name} has been replaced already, by {vars(owner)[name]!r}: undo that first."
            )
        setattr(owner, name, Override(self, method))
        self._overrides.append((weakref.ref(owner), name))

    def hook(self, module: nn.Module, function: Callable[..., Any], pre: bool = False, **options: Any) -> None:
        """Register a forward hook, or a forward pre-hook.

        Args:
            module: The module.
            function: A method of the adapter.
            pre: Whether it is called before the module's forward.
            options: Options of PyTorch's method, such as ``with_kwargs``.
        """
        register = module.register_forward_pre_hook if pre else module.register_forward_hook
        self._hooks.append(register(function, **options))

    def attach(self, criteria: Mapping[str, Criterion]) -> None:
        """Let criteria compute the detector's losses.

        Args:
            criteria: The criterion of each stage whose loss is replaced; a stage without one keeps its own.

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
        """Refuse TorchScript, whose own message would name a type that it does not know.

        Raises:
            UsageError: Always.
        """
        cure = "call lit_dense.unpatch(model) before, which keeps the weights, or use"
        losses = [
            criterion.loss for stage, criterion in self.criteria.items() if self.columns(stage).background is None
        ]
        if extra := next((loss for loss in losses if loss.extra_logits), None):  # a stock head shows them as classes
            cure = f"{type(extra).__name__} has columns that only a patched model reads, so use"
        raise UsageError(
            f"torch.jit.script cannot compile a patched model: {cure} torch.jit.trace or torch.onnx.export."
        )

    def remove(self) -> None:
        """Give the detector its own losses back; it is then as it was before."""
        for reference, name in self._overrides:
            owner = reference()  # None where the module was replaced since
            if owner is not None and isinstance(vars(owner).get(name), Override):
                delattr(owner, name)
        for handle in self._hooks:
            handle.remove()
        self._overrides, self._hooks = [], []
        vars(self.detector).pop(ATTRIBUTE, None)

    def check(self, stage: str, criterion: Criterion) -> None:
        """Refuse a criterion that does not fit the detector, and tell it the number of classes.

        Raises:
            UsageError: If it does not fit.
        """
        name, columns, loss = type(self.detector).__name__, self.columns(stage), criterion.loss
        extra, spare = loss.extra_logits, int(columns.background is not None)
        if columns.background is None and columns.classes <= extra:
            raise UsageError(
                f"{type(loss).__name__} has {extra} columns besides those of classes, but the head has only "
                f"{columns.classes}: build the model with num_classes={columns.classes + extra}."
            )
        if spare and extra > spare:
            raise UsageError(
                f"{type(loss).__name__} needs {extra} columns besides those of classes, but {name} has one, of "
                "background: take another loss."
            )
        if criterion.box_loss is None and "box_loss" in self.offers:
            raise UsageError(f"{name} needs a box loss: give box_loss.")
        if criterion.box_loss is not None and "box_loss" not in self.offers:
            raise UsageError(
                f"{name} keeps its own loss of boxes, and {type(criterion.box_loss).__name__} cannot take its place: "
                "leave box_loss out."
            )
        if criterion.box_loss is not None and criterion.box_loss.space == "deltas" and "deltas" not in self.offers:
            raise UsageError(
                f"{type(criterion.box_loss).__name__} compares deltas of anchors, but {name} predicts boxes."
            )
        if criterion.matcher is not None and "assignment" not in self.offers:
            owners = [w for w in criterion.weighters if w.assigner is not None]
            of_owner = f" of {type(owners[0]).__name__}" if owners else ""
            raise UsageError(
                f"{name} matches predictions and ground truths itself{f' (stage {stage!r})' if stage else ''}, and "
                f"{type(criterion.matcher).__name__}{of_owner} cannot take its place: leave it out."
            )
        criterion.prepare(columns.classes - (0 if spare else extra))

    def __getstate__(self) -> dict[str, Any]:
        overrides = [(owner, name) for reference, name in self._overrides if (owner := reference()) is not None]
        hooks = [handle for handle in self._hooks if handle.hooks_dict_ref() is not None]  # else torch cannot copy them
        return {**self.__dict__, "_detector": self.detector, "_overrides": overrides, "_hooks": hooks}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._detector = weakref.ref(state["_detector"])
        self._overrides = [(weakref.ref(owner), name) for owner, name in state["_overrides"]]


def loss_columns(logits: Tensor, extra_logits: int) -> Tensor:
    """Class logits in a loss's order of columns, of logits whose first column is background [..., C + extra_logits].

    Without extra columns the background column is left out: it stays in the model and gets no gradient.
    """
    if extra_logits == 0:
        return logits[..., 1:]
    return torch.cat([logits[..., 1:], logits[..., :1]], -1)


def _classes_alone(columns: Columns, values: Tensor) -> Tensor:
    """Columns of classes, without that of background [..., L] -> [..., C]."""
    if columns.background is None:
        return values
    return values[..., 1:] if columns.background == "first" else values[..., :-1]


@torch.no_grad()
def own_scores(columns: Columns, loss: DenseLoss) -> bool:
    """Whether a detector's own inference makes the scores that a loss trains; some logits are tried.

    Args:
        columns: What the columns of the class logits are.
        loss: The loss.
    """
    width = columns.classes + int(columns.background is not None)
    state = next(iter([*loss.parameters(), *loss.buffers()]), torch.empty(0))
    logits = torch.linspace(-3, 3, 2 * width, device=state.device).view(2, width)
    own = logits.softmax(-1) if columns.scores == "softmax" else logits.sigmoid()
    own = _classes_alone(columns, own)
    if columns.background == "first":
        logits = loss_columns(logits, loss.extra_logits)
    elif loss.extra_logits == 0:
        logits = _classes_alone(columns, logits)
    trained = loss.score_logits(logits).sigmoid()
    return own.shape == trained.shape and bool(torch.allclose(own, trained, atol=1e-5))
