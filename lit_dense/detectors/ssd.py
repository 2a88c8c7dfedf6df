"""The adapter of torchvision's SSD and SSDlite."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.models.detection.ssd import SSD
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image

from ..core.errors import UsageError
from ..core.samples import DenseSamples
from ..criterion import Criterion, CriterionArgs
from .base import Detections, DetectorAdapter, Terms
from .columns import Columns, loss_columns, own_scores
from .input_checks import InputChecks
from .one_stage import OneStageAdapter


class SSDAdapter(OneStageAdapter):
    """Adapter of torchvision's SSD300 and SSDlite: softmax with background, and the hardest negatives of each image.

    With a loss of single logits the background column is ignored, and the scores in evaluation are sigmoids.
    """

    detectors = ("torchvision.models.detection.ssd.SSD",)

    stock: ClassVar[Mapping[str, CriterionArgs]] = {
        "": {
            "loss": "softmax",
            "box_loss": {"class_path": "smooth_l1", "init_args": {"beta": 1.0}},
            "weighters": [{"class_path": "ohem", "init_args": {"ratio": 3, "k_min": 0}}],
            "normalizer": "batch",
        }
    }

    def columns(self, stage: str) -> Columns:
        """Return background and the classes; labels start at 1.

        Raises:
            UsageError: If the head has no attribute ``num_columns``.
        """
        number = getattr(self.detector.head.classification_head, "num_columns", None)
        if number is None:
            head = type(self.detector.head.classification_head).__name__
            raise UsageError(
                f"{head} has no attribute num_columns: set it to the number of columns, including background."
            )
        return Columns(number - 1, background="first", scores="softmax", first_label=1)

    def defaults(self, stage: str) -> CriterionArgs:
        """Return softmax and ``smooth_l1`` with SSD's hard negatives, divided by the positives of the batch."""
        ohem = {"class_path": "ohem", "init_args": {"ratio": self.detector.neg_to_pos_ratio, "k_min": 0}}
        return {**self.stock[stage], "weighters": [ohem]}

    def check(self, stage: str, criterion: Criterion) -> None:
        """Reject a criterion that does not fit, or scores that a subclass's own post-processing does not compute.

        Raises:
            UsageError: If the criterion does not fit.
        """
        super().check(stage, criterion)
        name = type(self.detector).__name__
        own = type(self.detector).postprocess_detections is not SSD.postprocess_detections
        if own and criterion.calibrator is not None:
            raise UsageError(
                f"{name} has its own postprocess_detections, whose scores {type(criterion.calibrator).__name__} cannot "
                "change: leave calibrator out."
            )
        if own and not own_scores(self.columns(stage), criterion.loss):
            raise UsageError(
                f"{name} has its own postprocess_detections, which computes softmax scores, but "
                f"{type(criterion.loss).__name__} trains other scores: take softmax."
            )

    def install(self) -> None:
        """Replace the detector's loss, and its post-processing if the loss does not train softmax scores."""
        self.install_ignore_regions()
        InputChecks.hook_inputs(self)  # SSD has no head whose loss could be left out
        self.override(self.detector, "compute_loss", "compute_loss")
        if self.criteria[""].calibrator or not own_scores(self.columns(""), self.criteria[""].loss):
            self.override(self.detector, "postprocess_detections", "postprocess_detections")
        self.hook(self.detector.anchor_generator, self._note_geometry, pre=True)

    def loss_owners(self, stage: str) -> Mapping[str, Sequence[nn.Module]]:
        """Return the detector, whose own method computes the loss."""
        return {"loss": [self.detector], "box_loss": [self.detector]}

    def terms(self, stage: str, samples: DenseSamples, targets: Sequence[Mapping[str, Any]]) -> Terms:
        """Compute the criterion's loss terms in torchvision's order, the boxes' first."""
        terms = super().terms(stage, samples, targets)
        return {"bbox_regression": terms.pop("bbox_regression"), **terms}

    @property
    def anchors_per_cell(self) -> Sequence[int]:
        """Number of default boxes of a cell, for each level."""
        numbers: list[int] = self.detector.anchor_generator.num_anchors_per_location()
        return numbers

    def loss_logits(self, head_outputs: dict[str, Tensor]) -> Tensor:
        """Return the logits of the classes, followed by background if the loss reads it [B, K, L]."""
        return loss_columns(head_outputs["cls_logits"], self.criteria[""].loss.extra_logits)

    candidates_per_class = True

    def class_scores(self, outputs: dict[str, Tensor]) -> Tensor:
        """Return the scores of all default boxes: softmax without background, or the scores that the loss trains."""
        if "postprocess_detections" not in vars(self.detector):  # not overridden: softmax scores
            return outputs["cls_logits"].float().softmax(-1)[..., 1:]
        return self.criteria[""].score_logits(self.loss_logits(outputs).float()).sigmoid()

    def postprocess_detections(
        self, head_outputs: dict[str, Tensor], image_anchors: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> Detections:
        """Replace ``SSD.postprocess_detections``: use the scores that the loss trains.

        Args:
            head_outputs: Outputs of the head.
            image_anchors: Default boxes of each image [K, 4].
            image_shapes: Height and width of each resized image in pixels.
        """
        scores = self.class_scores(head_outputs)
        images = zip(head_outputs["bbox_regression"], scores, image_anchors, image_shapes, strict=True)
        return [self._detections_of_image(*image) for image in images]

    def _detections_of_image(
        self, deltas: Tensor, scores: Tensor, anchors: Tensor, shape: tuple[int, int]
    ) -> dict[str, Tensor]:
        detector = self.detector
        boxes = clip_boxes_to_image(detector.box_coder.decode_single(deltas, anchors), shape)
        kept: list[tuple[Tensor, Tensor, Tensor]] = []
        for label, of_class in enumerate(scores.unbind(1), start=1):
            rows = (of_class > detector.score_thresh).nonzero().squeeze(1)
            best, order = of_class[rows].topk(min(len(rows), detector.topk_candidates))
            kept.append((boxes[rows[order]], best, torch.full_like(best, label, dtype=torch.int64)))
        all_boxes, all_scores, labels = (torch.cat(parts) for parts in zip(*kept, strict=True))
        kept_rows = batched_nms(all_boxes, all_scores, labels, detector.nms_thresh)[: detector.detections_per_img]
        return {"boxes": all_boxes[kept_rows], "scores": all_scores[kept_rows], "labels": labels[kept_rows]}

    @property
    def _class_layers(self) -> list[Any]:
        """The last convolution of each level's classifier."""
        levels = self.detector.head.classification_head.module_list
        # a level of SSDlite is a block of layers
        return [level if isinstance(level, nn.Conv2d) else level[-1] for level in levels]

    def set_class_bias(self, bias: Tensor, stage: str) -> None:
        """Set the biases of all levels; if the loss does not read background, its logit becomes 0.

        Args:
            bias: Bias of each class [C], followed by background if the loss reads it [C + 1].
            stage: Name of the stage.
        """
        columns = self.columns(stage).classes + 1
        with torch.no_grad():
            for layer in self._class_layers:
                if layer.bias is None:
                    DetectorAdapter.set_class_bias(self, bias, stage)  # raises an error
                own = layer.bias.view(-1, columns)
                own[:, 1:] = bias[: columns - 1]
                if len(bias) == columns:
                    own[:, 0] = bias[-1]
                else:  # neutral, in case torchvision's softmax reads it later
                    own[:, 0] = 0.0
                    layer.weight.view(-1, columns, *layer.weight.shape[1:])[:, 0] = 0.0

    def class_bias(self, stage: str) -> Tensor:
        """Return the biases of all levels, one row per default box of a cell of each level [N, C + extra_logits]."""
        columns = self.columns(stage).classes + 1
        if any(layer.bias is None for layer in self._class_layers):
            DetectorAdapter.class_bias(self, stage)  # raises an error
        rows = torch.cat([layer.bias.detach().view(-1, columns) for layer in self._class_layers])
        return loss_columns(rows, self.criteria[stage].loss.extra_logits)

    def detector_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        per_level: list[int],
    ) -> Terms:
        """Match anchors as SSD's forward does, and compute the loss terms."""
        matched = [
            torch.full((len(a),), -1, device=a.device)
            if t["boxes"].numel() == 0
            else self.detector.proposal_matcher(box_iou(t["boxes"], a))
            for a, t in zip(anchors, targets, strict=True)
        ]
        terms: Terms = self.detector.compute_loss(targets, head_outputs, anchors, matched)
        return terms

    def detections(
        self,
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        per_level: list[int],
        image_sizes: list[tuple[int, int]],
    ) -> Detections:
        """Compute the detections; SSD post-processes all levels together."""
        detections: Detections = self.detector.postprocess_detections(head_outputs, anchors, image_sizes)
        return detections
