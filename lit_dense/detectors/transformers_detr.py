"""The adapter of DETR and its variants in Hugging Face ``transformers``."""

import types
import weakref
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..core.errors import UsageError
from ..criterion import Criterion, CriterionArgs
from ..normalizers.native_normalizer import NativeNormalizer
from .columns import Columns
from .rebinding import rebound
from .set_prediction import Matches, Output, SetPredictionAdapter

CLASSIFIERS = ("class_labels_classifier", "class_embed", "enc_score_head", "enc_out_class_embed")
"""Names of the linear layers, or lists of them, that compute class logits."""


class Family(NamedTuple):
    """Description of a loss function of transformers.

    Args:
        criterion: Name of the criterion class that the function creates.
        part: The criterion's name of its class loss.
        term: Key of the class loss in ``loss_dict``.
        weight: Name of the weight of the class loss in the model's configuration; None if it is 1.
        argument: Name of an argument of the class loss in the model's configuration.
    """

    criterion: str
    part: str = "labels"
    term: str = "loss_ce"
    weight: str | None = None
    argument: str = "focal_alpha"


_DEFORMABLE = Family("DeformableDetrImageLoss")
_RT_DETR = Family("RTDetrLoss", "vfl", "loss_vfl", "weight_loss_vfl", "focal_loss_alpha")
_LW_DETR = Family("LwDetrImageLoss", weight="class_loss_coefficient")
FAMILIES = {
    "ForObjectDetection": Family("ImageLoss", argument="eos_coefficient"),
    "DeformableDetrForObjectDetection": _DEFORMABLE,
    "ConditionalDetrForObjectDetection": _DEFORMABLE,
    "DabDetrForObjectDetection": _DEFORMABLE,
    "RTDetrForObjectDetection": _RT_DETR,
    "RTDetrV2ForObjectDetection": _RT_DETR,
    "DFineForObjectDetection": _RT_DETR._replace(criterion="DFineLoss"),
    "LwDetrForObjectDetection": _LW_DETR,
    "RfDetrForObjectDetection": _LW_DETR,
}
"""Loss functions by the model's ``loss_type``."""
WITH_MASKS = (
    "ForSegmentation",
    "ConditionalDetrForSegmentation",
    "DeformableDetrForSegmentation",
    "RfDetrForInstanceSegmentation",
)
"""Loss functions of models with masks, which do not call the detector's loss: supported only to be rejected."""


class TransformersAdapter(SetPredictionAdapter):
    """Adapter of DETR, Conditional, DAB and Deformable DETR, RT-DETR, D-FINE, LW-DETR and RF-DETR of ``transformers``.

    Only the class loss of the model's loss function is replaced. The matcher, the box loss and the auxiliary, encoder
    and denoising outputs do not change. ``loss_dict`` has one class term instead of one per layer; it is already
    multiplied by its weight in the sum.
    """

    detectors = ("transformers.modeling_utils.PreTrainedModel",)

    @classmethod
    def accepts(cls, module: nn.Module) -> bool:
        """Whether the model has a supported loss function, or is a detector with masks.

        Other detectors, such as OWL-ViT, have the ``loss_type`` of DETR because of their class name, but not the
        arguments of its loss in their configuration.
        """
        kind = getattr(module, "loss_type", None)
        if kind in WITH_MASKS:
            return hasattr(module.config, "eos_coefficient")
        return kind in FAMILIES and hasattr(module.config, FAMILIES[kind].argument)

    @property
    def family(self) -> Family:
        """Description of the model's loss function.

        Raises:
            UsageError: If the model also trains masks.
        """
        kind = self.detector.loss_type
        if kind in WITH_MASKS:
            raise UsageError(
                f"{type(self.detector).__name__} trains masks together with boxes (its loss is {kind}), and that loss "
                "cannot be replaced: take a model for object detection."
            )
        return FAMILIES[kind]

    @property
    def softmax(self) -> bool:
        """Whether the model has a 'no object' column and softmax scores."""
        return self.family.criterion == "ImageLoss"

    def columns(self, stage: str) -> Columns:
        """Return the classes and 'no object' with softmax scores for DETR; one column per class for other models."""
        classes = self.detector.config.num_labels
        return Columns(classes, "last", "softmax") if self.softmax else Columns(classes)

    def defaults(self, stage: str) -> CriterionArgs:
        """Return the loss of the model's own loss function, with the arguments of its configuration."""
        config, family = self.detector.config, self.family
        loss: dict[str, Any]
        argument = getattr(config, family.argument)
        if self.softmax:
            loss = {"class_path": "softmax", "init_args": {"background_weight": argument}}
        elif family.part == "vfl":
            arguments = {"alpha": argument, "gamma": config.focal_loss_gamma, "detach_weight": True}
            loss = {"class_path": "vfl", "init_args": arguments}
        else:
            loss = {"class_path": "ia_bce" if family is _LW_DETR else "focal", "init_args": {"alpha": argument}}
        weight = 1.0 if family.weight is None else float(getattr(config, family.weight))
        return {"loss": loss, "box_loss": None, "normalizer": NativeNormalizer(), "loss_weight": weight}

    def check(self, stage: str, criterion: Criterion) -> None:
        """Reject a criterion that does not fit, and a release of ``transformers`` with another loss.

        Raises:
            UsageError: If the criterion or the release does not fit.
        """
        self.stock_loss()
        super().check(stage, criterion)

    def stock_loss(self) -> types.FunctionType:
        """The model's own loss function.

        Raises:
            UsageError: If the function does not create the expected criterion.
        """
        kind, name = self.detector.loss_type, self.family.criterion
        stock = import_module("transformers.loss.loss_utils").LOSS_MAPPING.get(kind)
        if not isinstance(stock, types.FunctionType) or name not in stock.__code__.co_names:
            release = import_module("transformers").__version__
            raise UsageError(
                f"{type(self.detector).__name__}: the loss {kind} of transformers {release} does not make the {name} "
                "that this release of lit_dense replaces. Take another release of one of them."
            )
        return stock

    def install(self) -> None:
        """Override the model's loss function, which its property ``loss_function`` returns."""
        self.override(self.detector, "_loss_function", "loss")

    def loss(self, *args: Any, **kwargs: Any) -> tuple[Tensor, dict[str, Tensor], Any]:
        """Compute the model's loss with the criterion's class loss.

        Args:
            args: Positional arguments of the model's loss function.
            kwargs: Keyword arguments of the model's loss function.

        Raises:
            UsageError: If a label has no column.
            NonFiniteLossError: If a term is NaN or infinite.
        """
        stock, recorder = self.stock_loss(), _Recorder(self.family)
        # the same code with one name bound to another class: other models of the process do not change
        name = self.family.criterion
        # not compiled: each step has a copy of its own
        run = torch.compiler.disable(rebound(stock, name, recorder.recording(stock.__globals__[name])))
        loss, terms, auxiliary = run(*args, **kwargs)
        own = self.own_terms(recorder)
        return loss + torch.stack(list(own.values())).sum(), {**terms, **own}, auxiliary

    def own_terms(self, recorder: "_Recorder") -> dict[str, Tensor]:
        """Compute the criterion's terms; the class term has the model's name for it.

        Args:
            recorder: The recorded inputs of the model's class loss.

        Raises:
            UsageError: If the model has not computed its class loss.
        """
        if not recorder.outputs:
            raise UsageError(
                f"{type(self.detector).__name__}: its loss function has not asked {self.family.criterion} for its "
                "class loss, which this release of lit_dense replaces. Take another release of transformers."
            )
        samples = self.samples(recorder.outputs, recorder.targets, self._native(recorder), "class_labels")
        terms = self.terms("", samples, recorder.targets)
        return {self.family.term if name == "classification" else name: term for name, term in terms.items()}

    def _native(self, recorder: "_Recorder") -> tuple[Tensor, float]:
        """Return the divisor of the last layer's class loss, counted on this process, and the smallest divisor."""
        first = recorder.outputs[0]
        device, objects = first.logits.device, sum(len(target["class_labels"]) for target in recorder.targets)
        if not self.softmax:
            groups = self.detector.config.group_detr if self.family is _LW_DETR else 1
            return torch.full((), float(objects * groups), device=device), 1.0
        weight = getattr(self.criteria[""].loss, "background_weight", 1.0)  # the model divides by a sum of weights
        positives = sum(len(source) for source, _ in first.matches)
        negatives = first.logits.shape[0] * first.logits.shape[1] - positives
        return torch.full((), positives + weight * negatives, device=device), torch.finfo(torch.float32).tiny

    def set_class_bias(self, bias: Tensor, stage: str) -> None:
        """Set the bias of the classifiers of all layers and of the encoder."""
        for layer in self._classifiers(stage):
            with torch.no_grad():
                layer.bias.copy_(bias)

    def class_bias(self, stage: str) -> Tensor:
        """Return the bias of the classifiers of all layers and of the encoder [N, C + extra_logits]."""
        return torch.stack([layer.bias.detach() for layer in self._classifiers(stage)])

    def _classifiers(self, stage: str) -> list[nn.Linear]:
        width = self.columns(stage).classes + int(self.softmax)
        layers = [
            module
            for name, module in self.detector.named_modules()
            if isinstance(module, nn.Linear)
            and module.bias is not None
            and module.out_features == width
            and any(component in CLASSIFIERS for component in name.split("."))
        ]
        if not layers:
            super().set_class_bias(torch.empty(0), stage)
        return layers


class _Recorder:
    """The inputs of the class loss in one step.

    Args:
        family: Description of the model's loss function.
    """

    def __init__(self, family: Family) -> None:
        self.family = family
        self.outputs: list[Output] = []
        self.targets: list[Mapping[str, Tensor]] = []
        self._first: float | None = None

    def recording(self, stock: Any) -> Callable[..., Any]:
        """Return a factory of the model's criterion that records the inputs of the class loss and skips the loss.

        Args:
            stock: Class of the model's criterion.
        """

        def make(*args: Any, **kwargs: Any) -> Any:
            criterion = stock(*args, **kwargs)
            own = weakref.ref(criterion)  # a strong reference would be a cycle and keep the batch

            def get_loss(loss: str, outputs: Any, targets: Any, indices: Any, num_boxes: Any, **more: Any) -> Any:
                if loss != self.family.part:
                    return stock.get_loss(own(), loss, outputs, targets, indices, num_boxes, **more)
                self.note(outputs, targets, indices, float(num_boxes))
                return {}

            criterion.get_loss = get_loss
            return criterion

        return make

    def note(self, outputs: Mapping[str, Tensor], targets: Any, matches: Matches, divisor: float) -> None:
        """Record the predictions of one layer and its divisor, which denoising multiplies by its groups."""
        self._first = divisor if self._first is None else self._first
        self.targets = list(targets)
        self.outputs.append(Output(outputs["logits"], outputs["pred_boxes"], matches, divisor / self._first))
