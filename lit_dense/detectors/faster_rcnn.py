"""torchvision's Faster R-CNN, and Mask and Keypoint R-CNN, which are built on it."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import RoIHeads

from ..core.errors import UsageError
from ..criterion import Criterion, CriterionArgs
from .base import Columns, Detections, Terms, loss_columns, own_scores
from .roi_heads import TERMS as ROI_TERMS
from .roi_heads import RoIStage
from .rpn import TERMS as RPN_TERMS
from .rpn import RPNStage

SEED = 0
"""Seed of what is drawn for the losses of an evaluation."""

SEAMS = {
    "roi": ("roi_heads", ("select_training_samples", "postprocess_detections")),
    "rpn": ("rpn", ("assign_targets_to_anchors", "compute_loss")),
}
"""Of each stage the module whose loss is replaced, and the methods that it must have."""


SMOOTH_L1 = {"class_path": "smooth_l1", "init_args": {"beta": 1 / 9}}


class FasterRCNNAdapter(RoIStage, RPNStage):
    """torchvision's Faster R-CNN of either version, and the box heads of Mask R-CNN and Keypoint R-CNN.

    Stage ``roi`` is the loss of classes and boxes of proposals, stage ``rpn`` that of the region proposal network. A
    stage without a criterion is left as it is. Matching and sampling stay the detector's own: what it does not draw is
    ignored. Terms keep their names, and those that weighters add begin with the stage, such as ``roi_carl``.
    """

    detectors = ("torchvision.models.detection.generalized_rcnn.GeneralizedRCNN",)
    stages = ("roi", "rpn")
    offers = frozenset({"boxes", "deltas", "anchors", "box_loss"})

    stock: ClassVar[Mapping[str, CriterionArgs]] = {
        "roi": {"loss": "softmax", "box_loss": SMOOTH_L1, "normalizer": "sampled"},
        # bce has alpha 0.5, which halves it
        "rpn": {"loss": "bce", "box_loss": SMOOTH_L1, "normalizer": "sampled", "loss_weight": 2.0},
    }

    def columns(self, stage: str) -> Columns:
        """Classes after background, with a softmax's scores; of the proposal network one column, objectness."""
        if stage == "rpn":
            return Columns(1, first_label=1)
        return Columns(self.classifier.out_features - 1, "first", "softmax", first_label=1)

    def defaults(self, stage: str) -> CriterionArgs:
        """Cross-entropy and ``smooth_l1``, as mean over what was drawn."""
        return self.stock[stage]

    def check(self, stage: str, criterion: Criterion) -> None:
        """Refuse a criterion that does not fit the detector, and tell it the number of classes.

        Raises:
            UsageError: If it does not fit, or if the detector's modules lack the methods that are replaced.
        """
        path, methods = SEAMS[stage]
        module = getattr(self.detector, path)
        if lacking := [name for name in methods if not hasattr(module, name)]:
            raise UsageError(
                f"{type(self.detector).__name__}.{path} is a {type(module).__name__} without {' and '.join(lacking)}: "
                f"the loss of its stage {stage!r} cannot be replaced."
            )
        if stage == "rpn" and criterion.loss.extra_logits:
            raise UsageError(
                f"{type(criterion.loss).__name__} needs columns besides those of classes, but the region proposal "
                "network has objectness alone: take a loss of single logits for stage 'rpn', such as bce or focal."
            )
        super().check(stage, criterion)
        own = stage == "roi" and type(module).postprocess_detections is not RoIHeads.postprocess_detections
        if own and not own_scores(self.columns(stage), criterion.loss):
            raise UsageError(
                f"{type(module).__name__} has a postprocess_detections of its own, which makes scores by softmax, and "
                f"{type(criterion.loss).__name__} trains others: take softmax."
            )

    def term_name(self, stage: str, name: str) -> str:
        """Torchvision's name of a term of the criterion, or the stage and the name of what a weighter adds.

        Args:
            stage: The stage.
            name: The criterion's name of it.
        """
        own = RPN_TERMS if stage == "rpn" else ROI_TERMS
        return own.get(name, f"{stage}_{name}")

    def install(self) -> None:
        """Take over the losses of the stages that have a criterion."""
        if "rpn" in self.criteria:
            self.install_rpn()
        if "roi" in self.criteria:
            self.install_roi()

    def set_class_bias(self, bias: Tensor, stage: str) -> None:
        """Set the classifier's bias.

        Where the loss has no column of background, the classifier's own is set to 0: nothing reads or trains it.

        Args:
            bias: Bias of each column [C + extra_logits], background last.
            stage: The stage.
        """
        layer = self.detector.rpn.head.cls_logits if stage == "rpn" else self.classifier
        if layer.bias is None:
            super().set_class_bias(bias, stage)
        with torch.no_grad():
            if stage == "rpn":  # a channel for each anchor of a cell
                layer.bias.fill_(bias[0])
                return
            num_classes = layer.out_features - 1
            layer.bias[1:] = bias[:num_classes]
            if len(bias) > num_classes:
                layer.bias[0] = bias[-1]
            else:
                layer.bias[0] = 0.0
                layer.weight[0] = 0.0

    def class_bias(self, stage: str) -> Tensor:
        """The classifier's bias in the order of the loss's columns [1, C + extra_logits]; of ``rpn`` [N, 1].

        Args:
            stage: The stage.
        """
        layer = self.detector.rpn.head.cls_logits if stage == "rpn" else self.classifier
        if layer.bias is None:
            return super().class_bias(stage)
        bias: Tensor = layer.bias.detach()
        if stage == "rpn":
            return bias.unsqueeze(1)
        return loss_columns(bias, self.criteria[stage].loss.extra_logits).unsqueeze(0)

    def limit_outputs(
        self, score_thresh: float, nms_thresh: float, topk_candidates: int, detections_per_img: int
    ) -> None:
        """Set the box head's attributes; candidates are the proposals, whose numbers are left as they are."""
        heads = self.detector.roi_heads
        heads.score_thresh, heads.nms_thresh, heads.detections_per_img = score_thresh, nms_thresh, detections_per_img

    def losses_and_detections(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> tuple[Terms, Detections]:
        """Loss terms and detections of one pass through backbone and proposal network.

        What is drawn for the losses is drawn with a fixed seed: they are the same at every call, and the random stream
        of the training goes on as if nothing had been drawn. They are those of the proposals of an evaluation.

        Args:
            images: Images in [0, 1], each [3, H, W].
            targets: Per image ``boxes`` [G, 4] in pixels and ``labels`` [G], and what masks and keypoints need.
        """
        model = self.detector
        original_sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        batch, resized = model.transform(images, targets)
        features = model.backbone(batch.tensors)
        features = {"0": features} if isinstance(features, Tensor) else features
        with _own_draws(batch.tensors.device), _with_losses(model.rpn), _with_losses(model.roi_heads):
            proposals, rpn_terms = model.rpn(batch, features, resized)
            _, terms = model.roi_heads(features, proposals, batch.image_sizes, resized)
        found, _ = model.roi_heads(features, proposals, batch.image_sizes)
        return {**terms, **rpn_terms}, model.transform.postprocess(found, batch.image_sizes, original_sizes)


@contextmanager
def _own_draws(device: torch.device) -> Iterator[None]:
    """Draw random numbers from a fixed seed, and leave the random streams as they are."""
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng([device] if on_gpu else []):
        torch.default_generator.manual_seed(SEED)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(SEED)
        yield


@contextmanager
def _with_losses(module: Any) -> Iterator[None]:
    """Let a module in evaluation mode compute its losses; its submodules and numbers of proposals stay as they are."""
    with ExitStack() as undone:
        for name in ("pre_nms_top_n", "post_nms_top_n"):  # of the proposal network, which asks whether it is trained
            if hasattr(module, name) and name not in vars(module):
                number = getattr(module, name)()
                setattr(module, name, lambda number=number: number)
                undone.callback(delattr, module, name)
        undone.callback(setattr, module, "training", module.training)
        module.training = True
        yield
