"""DETR and its kin in Hugging Face ``transformers``."""

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
from .base import Columns
from .set_prediction import Matches, Output, SetPredictionAdapter

CLASSIFIERS = ("class_labels_classifier", "class_embed", "enc_score_head", "enc_out_class_embed")
"""Names of the linear layers, or of lists of them, that give class logits."""


class Family(NamedTuple):
    """What is to be known of one of transformers' loss functions.

    Args:
        criterion: Class of the criterion that the function makes.
        part: What the criterion calls its class loss.
        term: Key of that loss in ``loss_dict``.
        weight: Name of its weight in the model's configuration, None where it is 1.
        argument: Name of an argument of that loss in the model's configuration.
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
"""Loss functions of models that contain a detector and do not ask its loss: found, so that they can be refused."""


class TransformersAdapter(SetPredictionAdapter):
    """DETR, Conditional, DAB and Deformable DETR, RT-DETR, D-FINE, LW-DETR and RF-DETR of ``transformers``.

    The model's loss function runs as it is, but for the class loss: its matcher, its loss of boxes, auxiliary, encoder
    and denoising outputs stay. ``loss_dict`` holds one class term in place of one of each layer, weighted as it enters
    the sum.
    """

    detectors = ("transformers.modeling_utils.PreTrainedModel",)

    @classmethod
    def accepts(cls, module: nn.Module) -> bool:
        """Whether the model is trained with one of the loss functions that are known, or has masks besides.

        Detectors of another kind, such as OWL-ViT, have the ``loss_type`` of DETR by their name.
        """
        kind = getattr(module, "loss_type", None)
        if kind in WITH_MASKS:
            return hasattr(module.config, "eos_coefficient")
        return kind in FAMILIES and hasattr(module.config, FAMILIES[kind].argument)

    @property
    def family(self) -> Family:
        """What is known of the model's loss function.

        Raises:
            UsageError: If it trains masks too.
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
        """Whether the model has a column of 'no object' and a softmax."""
        return self.family.criterion == "ImageLoss"

    def columns(self, stage: str) -> Columns:
        """DETR has a softmax, and its column of 'no object' last; the others have a column for each class."""
        classes = self.detector.config.num_labels
        return Columns(classes, "last", "softmax") if self.softmax else Columns(classes)

    def defaults(self, stage: str) -> CriterionArgs:
        """The loss of the model's own function, with the arguments of its configuration."""
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
        """Refuse a criterion that does not fit, and a release of ``transformers`` whose loss is another.

        Raises:
            UsageError: If it does not fit.
        """
        self.stock_loss()
        super().check(stage, criterion)

    def stock_loss(self) -> types.FunctionType:
        """The model's own loss function.

        Raises:
            UsageError: If it does not make the criterion that is known.
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
        """Give the model a loss function of its own, which ``loss_function`` returns."""
        self.override(self.detector, "_loss_function", "loss")

    def loss(self, *args: Any, **kwargs: Any) -> tuple[Tensor, dict[str, Tensor], Any]:
        """The model's loss function with the criterion's class loss.

        Args:
            args: What the model gives its loss function.
            kwargs: The same, by name.

        Raises:
            UsageError: If a label has no column.
            NonFiniteLossError: If a term is NaN or infinite.
        """
        stock, seen = self.stock_loss(), _Seen(self.family)
        # its code with one name bound to another class, so that nothing is changed for other models
        names = {**stock.__globals__, self.family.criterion: seen.listening(stock.__globals__[self.family.criterion])}
        run = types.FunctionType(stock.__code__, names, stock.__name__, stock.__defaults__, stock.__closure__)
        run.__kwdefaults__ = stock.__kwdefaults__
        loss, terms, auxiliary = run(*args, **kwargs)
        own = self.own_terms(seen)
        return loss + torch.stack(list(own.values())).sum(), {**terms, **own}, auxiliary

    def own_terms(self, seen: "_Seen") -> dict[str, Tensor]:
        """The criterion's terms, that of classes under the name that the model has for it.

        Args:
            seen: What the model's criterion was asked.
        """
        if not seen.outputs:
            raise UsageError(
                f"{type(self.detector).__name__}: its loss function has not asked {self.family.criterion} for its "
                "class loss, which this release of lit_dense replaces. Take another release of transformers."
            )
        terms = self.terms(
            "", self.samples(seen.outputs, seen.targets, self._native(seen), "class_labels"), seen.targets
        )
        return {self.family.term if name == "classification" else name: term for name, term in terms.items()}

    def _native(self, seen: "_Seen") -> tuple[Tensor, float]:
        """What the model divides the last layer's class loss by, on this process, and the least."""
        first = seen.outputs[0]
        device, objects = first.logits.device, sum(len(target["class_labels"]) for target in seen.targets)
        if not self.softmax:
            groups = self.detector.config.group_detr if self.family is _LW_DETR else 1
            return torch.full((), float(objects * groups), device=device), 1.0
        weight = getattr(self.criteria[""].loss, "background_weight", 1.0)  # the mean is over weights
        positives = sum(len(source) for source, _ in first.matches)
        negatives = first.logits.shape[0] * first.logits.shape[1] - positives
        return torch.full((), positives + weight * negatives, device=device), torch.finfo(torch.float32).tiny

    def set_class_bias(self, bias: Tensor, stage: str) -> None:
        """Set the bias of each layer's classifier, and of the encoder's."""
        for layer in self._classifiers(stage):
            with torch.no_grad():
                layer.bias.copy_(bias)

    def class_bias(self, stage: str) -> Tensor:
        """The bias of each layer's classifier [N, C + extra_logits]."""
        return torch.stack([layer.bias.detach() for layer in self._classifiers(stage)])

    def _classifiers(self, stage: str) -> list[nn.Linear]:
        width = self.columns(stage).classes + int(self.softmax)
        found = [
            module
            for name, module in self.detector.named_modules()
            if isinstance(module, nn.Linear)
            and module.bias is not None
            and module.out_features == width
            and any(part in CLASSIFIERS for part in name.split("."))
        ]
        if not found:
            super().set_class_bias(torch.empty(0), stage)
        return found


class _Seen:
    """What the criterion of one step was asked.

    Args:
        family: What is known of the criterion.
    """

    def __init__(self, family: Family) -> None:
        self.family = family
        self.outputs: list[Output] = []
        self.targets: list[Mapping[str, Tensor]] = []
        self._first: float | None = None

    def listening(self, stock: Any) -> Callable[..., Any]:
        """Makes criteria as the model's class does, whose class loss is noted and not computed.

        Args:
            stock: Class of the model's criterion.
        """

        def make(*args: Any, **kwargs: Any) -> Any:
            criterion = stock(*args, **kwargs)
            own = weakref.ref(criterion)  # a strong reference would keep the batch until the garbage collector comes

            def get_loss(loss: str, outputs: Any, targets: Any, indices: Any, num_boxes: Any, **more: Any) -> Any:
                if loss != self.family.part:
                    return stock.get_loss(own(), loss, outputs, targets, indices, num_boxes, **more)
                self.note(outputs, targets, indices, float(num_boxes))
                return {}

            criterion.get_loss = get_loss
            return criterion

        return make

    def note(self, outputs: Mapping[str, Tensor], targets: Any, matches: Matches, divisor: float) -> None:
        """Note what one layer predicts; the divisor is the model's, which denoising multiplies by its groups."""
        self._first = divisor if self._first is None else self._first
        self.targets = list(targets)
        self.outputs.append(Output(outputs["logits"], outputs["pred_boxes"], matches, divisor / self._first))
