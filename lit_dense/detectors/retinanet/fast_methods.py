"""Faster methods for torchvision's RetinaNet, with the same results."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import box_iou, clip_boxes_to_image

from ...functional.matching import match_by_iou
from ...functional.top_detections import suppress, top_scores
from ...functional.tracing import records_graph
from ..base import Detections, Terms
from ..one_stage import OneStageAdapter
from .fused_towers import tower_outputs

SHAPES_KEPT = 8
"""Number of batch shapes for which anchors are cached."""


class FastMethods(OneStageAdapter):
    """Overrides of methods of RetinaNet, its head and its anchor generator; subclasses keep their own methods."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__(detector)
        self.kept_anchors: OrderedDict[Any, tuple[Tensor, int, list[Tensor]]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "kept_anchors": OrderedDict()}  # a copy has its own cache

    def accelerate(self) -> None:
        """Replace torchvision's methods by the faster ones."""
        detector = self.detector
        head, generator = detector.head, detector.anchor_generator
        if _is_stock(detector, RetinaNet, "compute_loss"):
            self.override(detector, "compute_loss", "match_and_compute_loss")
        if _is_stock(detector, RetinaNet, "postprocess_detections"):
            self.override(detector, "postprocess_detections", "postprocess_outputs")
        if _is_stock(head, RetinaNetHead, "forward"):
            self.override(head, "forward", "head_outputs")
        if all(_is_stock(generator, AnchorGenerator, name) for name in ("forward", "grid_anchors", "set_cell_anchors")):
            self.override(generator, "forward", "anchors")

    def match_and_compute_loss(
        self, targets: list[dict[str, Tensor]], head_outputs: dict[str, Tensor], anchors: list[Tensor]
    ) -> Terms:
        """Replace ``RetinaNet.compute_loss``: match without the IoU matrix, and only if the criterion has no assigner.

        Args:
            targets: For each image ``boxes`` [G, 4] and ``labels`` [G].
            head_outputs: Outputs of the head.
            anchors: Anchors of each image [K, 4].
        """
        detector, matched = self.detector, []
        if self.assigner is None:
            matched = match_images(detector.proposal_matcher, anchors, [target["boxes"] for target in targets])
        terms: Terms = detector.head.compute_loss(targets, head_outputs, anchors, matched)
        return terms

    def head_outputs(self, x: list[Tensor]) -> dict[str, Tensor]:
        """Replace ``RetinaNetHead.forward``: in training, write the outputs of all levels in the order of the anchors.

        Args:
            x: Features of each level [B, channels, H, W].
        """
        head = self.detector.head
        if records_graph() or not head.training:  # in this order: torch 2.4 cannot compile vars(tower)
            outputs: dict[str, Tensor] = RetinaNetHead.forward(head, x)
            return outputs
        return {
            "cls_logits": tower_outputs(head.classification_head, x),
            "bbox_regression": tower_outputs(head.regression_head, x),
        }

    def postprocess_outputs(
        self, head_outputs: dict[str, list[Tensor]], anchors: list[list[Tensor]], image_shapes: list[tuple[int, int]]
    ) -> Detections:
        """Replace ``RetinaNet.postprocess_detections``: decode only boxes with a score among the best.

        Args:
            head_outputs: Outputs of each level, [B, K, L] and [B, K, 4], or [B, K, n] of a box loss with own outputs.
            anchors: Anchors of each image and level [K, 4].
            image_shapes: Height and width of each resized image in pixels.
        """
        stock = type(self.detector).postprocess_detections is RetinaNet.postprocess_detections
        if records_graph() or not stock:
            return super().postprocess_outputs(head_outputs, anchors, image_shapes)
        images = zip(anchors, image_shapes, strict=True)
        return [self._of_image(head_outputs, index, own, shape) for index, (own, shape) in enumerate(images)]

    def _of_image(
        self, head_outputs: dict[str, list[Tensor]], index: int, anchors: list[Tensor], shape: tuple[int, int]
    ) -> dict[str, Tensor]:
        """Compute the detections of one image of the batch."""
        detector = self.detector
        references = self.references(torch.cat(anchors)).split([len(level) for level in anchors])
        boxes, scores, labels = [], [], []
        for deltas, logits, level_references in zip(
            head_outputs["bbox_regression"], head_outputs["cls_logits"], references, strict=True
        ):
            level_scores, positions = top_scores(logits[index], detector.score_thresh, detector.topk_candidates)
            rows = positions.div(logits.shape[-1], rounding_mode="floor")
            decoded = self.box_coder.decode_single(deltas[index][rows], level_references[rows])
            boxes.append(clip_boxes_to_image(decoded, shape))
            scores.append(level_scores)
            labels.append(positions % logits.shape[-1])
        candidates = {"boxes": torch.cat(boxes), "scores": torch.cat(scores), "labels": torch.cat(labels)}
        kept = suppress(**candidates, iou_thresh=detector.nms_thresh, number=detector.detections_per_img)
        return {name: values[kept] for name, values in candidates.items()}

    def anchors(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Replace ``AnchorGenerator.forward``: cache the anchors of the last batch shapes; all images share one tensor.

        Args:
            image_list: The padded batch.
            feature_maps: Features of each level [B, channels, H, W].
        """
        generator = self.detector.anchor_generator
        if records_graph():
            computed: list[Tensor] = AnchorGenerator.forward(generator, image_list, feature_maps)
            return computed
        first = feature_maps[0]
        sizes = tuple(tuple(f.shape[-2:]) for f in feature_maps)
        key = (tuple(image_list.tensors.shape[-2:]), sizes, first.dtype, first.device)
        anchors, version, cells = self.kept_anchors.pop(key, (None, 0, []))
        if anchors is None or anchors._version != version or not _are_same(cells, generator.cell_anchors):
            one_image = ImageList(image_list.tensors, image_list.image_sizes[:1])
            with torch.inference_mode(False):  # anchors that are computed in validation must be usable in training
                anchors = AnchorGenerator.forward(generator, one_image, feature_maps)[0]
            cells = list(generator.cell_anchors)
        self.kept_anchors[key] = (anchors, anchors._version, cells)
        if len(self.kept_anchors) > SHAPES_KEPT:
            self.kept_anchors.popitem(last=False)
        return [anchors] * len(image_list.image_sizes)


def match_images(matcher: Any, anchors: Sequence[Tensor], gt_boxes: Sequence[Tensor]) -> list[Tensor]:
    """Return the index of the matched ground truth of each anchor, for each image; -1 background, -2 ignored [K].

    Args:
        matcher: torchvision's ``Matcher``; any other matcher is called with the matrix of all IoUs.
        anchors: Anchors of each image [K, 4].
        gt_boxes: Ground-truth boxes of each image [G, 4].
    """
    images = zip(anchors, gt_boxes, strict=True)
    if type(matcher) is Matcher:
        rules = matcher.high_threshold, matcher.low_threshold, matcher.allow_low_quality_matches
        return [match_by_iou(own, gt, *rules) for own, gt in images]
    background = Matcher.BELOW_LOW_THRESHOLD
    return [
        torch.as_tensor(matcher(box_iou(gt, own))) if len(gt) else own.new_full((len(own),), background).long()
        for own, gt in images
    ]


def _are_same(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return len(some) == len(others) and all(a is b for a, b in zip(some, others, strict=True))


def _is_stock(owner: nn.Module, stock: type, name: str) -> bool:
    return name not in vars(owner) and getattr(type(owner), name, None) is getattr(stock, name)
