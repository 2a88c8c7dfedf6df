"""The adapter of torchvision's Faster R-CNN, and of Mask and Keypoint R-CNN, which are built on it."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import RoIHeads

from ..core.errors import UsageError
from ..criterion import Criterion, CriterionArgs
from .base import Detections, Terms
from .columns import Columns, loss_columns, own_scores
from .input_checks import InputChecks
from .roi_heads import TERMS as ROI_TERMS
from .roi_heads import RoIStage
from .rpn import TERMS as RPN_TERMS
from .rpn import RPNStage

SEED = 0
"""Seed of the sampling of proposals and anchors in evaluation."""

SEAMS = {
    "roi": ("roi_heads", ("select_training_samples", "postprocess_detections")),
    "rpn": ("rpn", ("assign_targets_to_anchors", "compute_loss")),
}
"""For each stage, the module whose loss is replaced, and the methods that it must have."""


SMOOTH_L1 = {"class_path": "smooth_l1", "init_args": {"beta": 1 / 9}}


class FasterRCNNAdapter(InputChecks, RoIStage, RPNStage):
    """Adapter of torchvision's Faster R-CNN (both versions) and of the box heads of Mask R-CNN and Keypoint R-CNN.

    Stage ``roi`` is the loss of the classes and boxes of proposals. Stage ``rpn`` is the loss of the region proposal
    network. A stage without a criterion keeps its own loss. The detector does its own matching and sampling; proposals
    and anchors that it does not sample are ignored. Loss terms keep their names. The names of terms that weighters add
    begin with the stage, such as ``roi_carl``.
    """

    detectors = ("torchvision.models.detection.generalized_rcnn.GeneralizedRCNN",)
    stages = ("roi", "rpn")
    offers = frozenset({"boxes", "deltas", "anchors", "box_loss"})
    knows_image_sizes = True
    calibrated_stages = frozenset({"roi"})

    stock: ClassVar[Mapping[str, CriterionArgs]] = {
        "roi": {"loss": "softmax", "box_loss": SMOOTH_L1, "normalizer": "sampled"},
        # bce has alpha 0.5, which halves it
        "rpn": {"loss": "bce", "box_loss": SMOOTH_L1, "normalizer": "sampled", "loss_weight": 2.0},
    }

    def columns(self, stage: str) -> Columns:
        """Return background and the classes with softmax scores for ``roi``; one column, objectness, for ``rpn``."""
        if stage == "rpn":
            return Columns(1, first_label=1)
        return Columns(self.classifier.out_features - 1, "first", "softmax", first_label=1)

    def defaults(self, stage: str) -> CriterionArgs:
        """Return cross-entropy and ``smooth_l1``, averaged over the sampled proposals or anchors."""
        return self.stock[stage]

    def check(self, stage: str, criterion: Criterion) -> None:
        """Reject a criterion that does not fit the detector, and prepare it for the number of classes.

        Raises:
            UsageError: If the criterion does not fit, or if the detector's modules lack the methods to replace.
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
                "network has objectness only: take a loss of single logits for stage 'rpn', such as bce or focal."
            )
        if stage == "rpn" and criterion.class_weights is not None:
            raise UsageError(
                "The only class of stage 'rpn' is that of all objects, so class_weights has no effect: leave it out."
            )
        super().check(stage, criterion)
        own = stage == "roi" and type(module).postprocess_detections is not RoIHeads.postprocess_detections
        if own and criterion.calibrator is not None:
            raise UsageError(
                f"{type(module).__name__} has its own postprocess_detections, whose scores "
                f"{type(criterion.calibrator).__name__} cannot change: leave calibrator out."
            )
        if own and not own_scores(self.columns(stage), criterion.loss):
            raise UsageError(
                f"{type(module).__name__} has its own postprocess_detections, which computes softmax scores, but "
                f"{type(criterion.loss).__name__} trains other scores: take softmax."
            )

    def term_name(self, stage: str, name: str) -> str:
        """Return torchvision's name of a term; for a term that a weighter adds, the stage and its name.

        Args:
            stage: Name of the stage.
            name: The criterion's name of the term.
        """
        own = RPN_TERMS if stage == "rpn" else ROI_TERMS
        return own.get(name, f"{stage}_{name}")

    def install(self) -> None:
        """Replace the losses of the stages that have a criterion; only these stages read ignore regions."""
        self.install_ignore_regions()
        self.hook_inputs()
        if "rpn" in self.criteria:
            self.install_rpn()
        if "roi" in self.criteria:
            self.install_roi()

    def set_class_bias(self, bias: Tensor, stage: str) -> None:
        """Set the classifier's bias.

        If the loss has no background column, the weights and bias of the classifier's background column are set to 0:
        the column is neither read nor trained.

        Args:
            bias: Bias of each column [C + extra_logits], background last.
            stage: Name of the stage.
        """
        layer = self.detector.rpn.head.cls_logits if stage == "rpn" else self.classifier
        if layer.bias is None:
            super().set_class_bias(bias, stage)
        with torch.no_grad():
            if stage == "rpn":  # one channel per anchor of a cell
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
        """Return the classifier's bias in the order of the loss's columns [1, C + extra_logits]; of ``rpn`` [N, 1].

        Args:
            stage: Name of the stage.
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
        """Set the limits of the box head; its candidates are the proposals, so ``topk_candidates`` is ignored."""
        heads = self.detector.roi_heads
        heads.score_thresh, heads.nms_thresh, heads.detections_per_img = score_thresh, nms_thresh, detections_per_img

    def losses_and_detections(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> tuple[Terms, Detections]:
        """Return loss terms and detections of one pass through the backbone and the proposal network.

        The losses sample proposals and anchors with a fixed seed: they are the same at every call, and the random state
        of the training does not change. They are computed for the proposals that the detector makes in evaluation.

        Args:
            images: Images in [0, 1], each [3, H, W].
            targets: For each image ``boxes`` [G, 4] in pixels and ``labels`` [G]; masks and keypoints if trained.
        """
        model = self.detector
        original_sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        batch, resized = model.transform(images, targets)
        features = model.backbone(batch.tensors)
        features = {"0": features} if isinstance(features, Tensor) else features
        with _fixed_seed(batch.tensors.device), _with_losses(model.rpn), _with_losses(model.roi_heads):
            proposals, rpn_terms = model.rpn(batch, features, resized)
            _, terms = model.roi_heads(features, proposals, batch.image_sizes, resized)
        detections, _ = model.roi_heads(features, proposals, batch.image_sizes)
        return {**terms, **rpn_terms}, model.transform.postprocess(detections, batch.image_sizes, original_sizes)


@contextmanager
def _fixed_seed(device: torch.device) -> Iterator[None]:
    """Use a fixed random seed in this context, and restore the random state afterwards."""
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng([device] if on_gpu else []):
        torch.default_generator.manual_seed(SEED)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(SEED)
        yield


@contextmanager
def _with_losses(module: Any) -> Iterator[None]:
    """Let a module compute its losses in evaluation mode, without changing submodules and numbers of proposals."""
    with ExitStack() as stack:
        for name in ("pre_nms_top_n", "post_nms_top_n"):  # the proposal network chooses them by its training flag
            if hasattr(module, name) and name not in vars(module):
                number = getattr(module, name)()
                setattr(module, name, lambda number=number: number)
                stack.callback(delattr, module, name)
        stack.callback(setattr, module, "training", module.training)
        module.training = True
        yield
