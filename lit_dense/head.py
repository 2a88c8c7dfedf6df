"""How a criterion gets into torchvision's RetinaNet: a head that borrows the towers of the one that is there."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead

from .batch_format import check_format
from .class_counts import ClassCounts
from .criterion import Criterion
from .errors import UsageError, check_range
from .finite import FiniteCheck
from .flat_levels import records_graph, tower_outputs
from .losses import DenseLoss
from .reduce import Reduce
from .samples import BoxCoder, Geometry, collect_samples
from .stand_ins import give_back, take_over
from .weighters import WeightersLike


class DenseHead(RetinaNetHead):  # type: ignore[misc]  # torchvision has no types
    """A RetinaNet head whose loss is a criterion's.

    It borrows both towers of another head under their own names, so state-dict keys, forward, deepcopy and pickle stay
    what they were. The criterion is not registered as a submodule: the keys of somebody's model stay their own, and
    whoever patches a model keeps the criterion and saves its state.

    Args:
        head: The head to adopt.
        criterion: What computes the loss.
        box_coder: The detector's box coder.
    """

    criterion: Criterion

    def __init__(self, head: RetinaNetHead, criterion: Criterion, box_coder: BoxCoder) -> None:
        nn.Module.__init__(self)  # not RetinaNetHead's, which would make new towers
        self.classification_head = head.classification_head
        self.regression_head = head.regression_head
        self.training = head.training
        self.box_coder = box_coder
        self.geometry: Geometry | None = None
        self.finite_check = FiniteCheck()
        self.__dict__["criterion"] = criterion  # past nn.Module, which would register it

    def note_geometry(self, generator: nn.Module, inputs: tuple[ImageList, Sequence[Tensor]]) -> None:
        """Forward pre-hook of the anchor generator: it is told what ``compute_loss`` is not."""
        images, features = inputs
        self.geometry = Geometry([(f.shape[-2], f.shape[-1]) for f in features], list(images.image_sizes))

    def check_inputs(self, detector: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward pre-hook of the detector: batches in another format are named before torchvision fails on them.

        Raises:
            UsageError: If images or targets have another type or shape.
        """
        if records_graph():
            return
        given = {**dict(zip(("images", "targets"), args, strict=False)), **kwargs}
        check_format(detector, list(given["images"]), given.get("targets"), objects=detector.training)

    def __prepare_scriptable__(self) -> None:
        """Refuse to be scripted, in words: torch's own are of a type that TorchScript does not know.

        Raises:
            UsageError: Always.
        """
        cure = "call lit_dense.unpatch(model) before, which keeps the weights, or use"
        if self.criterion.loss.extra_logits:  # a stock head would show them as classes
            cure = f"{type(self.criterion.loss).__name__} has columns that only a patched model reads, so use"
        raise UsageError(
            f"torch.jit.script cannot compile a patched model: {cure} torch.jit.trace or torch.onnx.export."
        )

    def forward(self, x: list[Tensor]) -> dict[str, Tensor]:
        """Outputs of both towers; in evaluation the class logits are those whose sigmoid is the score."""
        if not self.training:
            return self.with_scores(super().forward(x))
        return {
            "cls_logits": tower_outputs(self.classification_head, x),
            "bbox_regression": tower_outputs(self.regression_head, x),
        }

    def with_scores(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Outputs with one logit for each class, whose sigmoid is its score, whatever columns the loss needs."""
        return {**outputs, "cls_logits": self.criterion.loss.score_logits(outputs["cls_logits"])}

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor]:
        """The criterion's loss terms, in place of torchvision's.

        Raises:
            UsageError: If a label has no column.
            NonFiniteLossError: If a term is NaN or infinite; it names the loss and the images.
        """
        criterion = self.criterion.to(anchors[0].device)
        if (assigner := criterion.matcher) is not None:
            matched_idxs = [
                assigner(a, t["boxes"], self.geometry) if len(t["boxes"]) else torch.full_like(m, -1)
                for a, t, m in zip(anchors, targets, matched_idxs, strict=True)
            ]
        samples = collect_samples(
            targets,
            head_outputs,
            anchors,
            matched_idxs,
            box_coder=self.box_coder,
            geometry=self.geometry,
            reduce=Reduce(enabled=torch.is_grad_enabled()),
            class_counts=criterion.class_counts,
            step=criterion.step,
            epoch=criterion.epoch,
            extra_logits=criterion.loss.extra_logits,
            score_logits=criterion.loss.score_logits,
        )
        terms: dict[str, Tensor] = criterion(samples)
        self.finite_check(terms, targets, criterion)
        return terms


def patch(
    model: nn.Module,
    loss: Any = "focal",
    box_loss: Any = None,
    weighters: WeightersLike = (),
    normalizer: Any = None,
    assigner: Any = None,
    loss_weight: float = 1.0,
    box_loss_weight: float = 1.0,
    class_counts: ClassCounts | None = None,
    prior: float | None = None,
) -> Criterion:
    """Give the RetinaNet inside a module another loss; forward, keys and everything else stay.

    Args:
        model: A torchvision RetinaNet, or any module that contains one.
        loss: The classification loss: a name, an object, or a dict with class_path and init_args.
        box_loss: The box loss; by default the one that the model has.
        weighters: One weighter or a list of them, whose weights multiply.
        normalizer: What the sums are divided by; torchvision's, the mean over images, by default.
        assigner: Matches anchors and ground truths; by default the model's own matcher.
        loss_weight: What the classification term is multiplied by.
        box_loss_weight: What the box term is multiplied by.
        class_counts: Class frequencies of the training set, for losses that need them.
        prior: Probability of an object that the classifier's bias is set to; by default the bias stays what it is.

    A loss with columns of its own (``softmax``, ``seesaw``) takes them from the end of the head's: build the model with
    so many more ``num_classes``.

    Returns:
        The criterion that now computes the loss. It is no submodule: save its ``state_dict`` if its parts have state.
        A model that was patched before gets the new criterion in place of the old one.

    Raises:
        UsageError: If there is no RetinaNet inside, or more than one; or if a loss needs class counts and has none.

    Example:
        >>> from torchvision.models.detection import retinanet_resnet50_fpn
        >>> model = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3)
        >>> criterion = patch(model, loss="focal", normalizer="batch")
        >>> unpatch(model)
    """
    detector = find_retinanet(model)
    criterion = Criterion(
        loss,
        box_loss or native_box_loss(detector),
        weighters,
        normalizer,
        assigner,
        loss_weight,
        box_loss_weight,
        class_counts,
    )
    _prepare(detector, criterion)
    criterion.check_ready()  # before anything is changed
    adopt(detector, criterion)
    if prior is not None:
        set_prior(detector, criterion.loss, prior)
    return criterion


def unpatch(model: nn.Module) -> None:
    """Give the RetinaNet inside a module its stock head back; does nothing where none was patched.

    Args:
        model: What was given to :func:`patch`.

    Raises:
        UsageError: If there is no RetinaNet inside, or more than one.
    """
    detector = find_retinanet(model)
    give_back(detector)
    head = detector.head
    if not isinstance(head, DenseHead):
        return
    stock = RetinaNetHead.__new__(RetinaNetHead)
    nn.Module.__init__(stock)
    stock.classification_head, stock.regression_head = head.classification_head, head.regression_head
    stock.training = head.training
    _forget_hooks(detector)
    detector.head = stock


def adopt(detector: RetinaNet, criterion: Criterion) -> None:
    """Put a criterion into a RetinaNet, in place of its loss or of another criterion.

    Raises:
        UsageError: If the head has too few columns for the loss.
    """
    _prepare(detector, criterion)
    unpatch(detector)
    head = DenseHead(detector.head, criterion, detector.box_coder)
    detector.anchor_generator.register_forward_pre_hook(head.note_geometry)
    detector.register_forward_pre_hook(head.check_inputs, with_kwargs=True)
    detector.head = head
    take_over(detector)


def _prepare(detector: RetinaNet, criterion: Criterion) -> None:
    """Tell a criterion how many classes the detector has, if its head has columns enough."""
    columns, extra = detector.head.classification_head.num_classes, criterion.loss.extra_logits
    if columns <= extra:
        raise UsageError(
            f"{type(criterion.loss).__name__} has {extra} columns besides those of classes, but the head has only "
            f"{columns}: build the model with num_classes={columns + extra}."
        )
    criterion.prepare(columns - extra)


def set_prior(detector: RetinaNet, loss: DenseLoss, prior: float) -> None:
    """Set the classifier's bias such that an object has the score ``prior`` before training.

    That is the score of each class, or of all together where the loss has them share one probability.

    Args:
        detector: The detector; a bias that was trained is overwritten.
        loss: Decides what the columns mean.
        prior: Probability of an object.

    Raises:
        UsageError: If the prior is not between 0 and 1.
    """
    prior = check_range("prior", "prior", prior, 1e-6, 0.999999)
    tower = detector.head.classification_head
    bias = loss.prior_bias(tower.num_classes - loss.extra_logits, prior)
    with torch.no_grad():
        tower.cls_logits.bias.copy_(bias.repeat(tower.num_anchors))  # channels are anchors times columns


def _forget_hooks(detector: RetinaNet) -> None:
    for module in (detector, detector.anchor_generator):
        hooks = module._forward_pre_hooks
        for key in [k for k, hook in hooks.items() if isinstance(getattr(hook, "__self__", None), DenseHead)]:
            del hooks[key]
            module._forward_pre_hooks_with_kwargs.pop(key, None)


def native_box_loss(detector: RetinaNet) -> str:
    """Name of the box loss that a torchvision RetinaNet comes with: ``l1``, or ``giou`` for the second version."""
    return str(getattr(detector.head.regression_head, "_loss_type", "l1"))


def find_retinanet(module: nn.Module) -> RetinaNet:
    """The one RetinaNet inside a module.

    Raises:
        UsageError: If there is none, or more than one; the message lists what was found.
    """
    found = {name or "the module itself": m for name, m in module.named_modules() if isinstance(m, RetinaNet)}
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise UsageError(
            f"{type(module).__name__} contains {len(found)} RetinaNets: {', '.join(found)}. Pass one of them."
        )
    inside = ", ".join(f"{name}: {type(m).__name__}" for name, m in module.named_children()) or "no submodules"
    raise UsageError(f"{type(module).__name__} contains no torchvision RetinaNet. It contains {inside}.")
