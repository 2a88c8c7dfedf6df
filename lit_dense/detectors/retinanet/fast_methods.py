"""Methods of torchvision's RetinaNet that an adopted one does in less time, with the same results.

Each is an attribute of the module whose method it takes the place of. So the module keeps its class, which pickle finds
and the host asks for, its state stays as it was, and taking a stand-in away is deleting an attribute. A class with a
method of its own keeps that.
"""

import weakref
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
from ..tracing import records_graph
from .fused_towers import tower_outputs

SHAPES_KEPT = 8


class MethodOverride:
    """Called in place of a method of a module.

    Args:
        owner: The module. It is referred to weakly, so that a model goes when its last user lets go of it.
    """

    def __init__(self, owner: Any) -> None:
        self._owner = weakref.ref(owner)

    @property
    def owner(self) -> Any:
        """The module whose method this is."""
        return self._owner()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.owner,)  # deepcopy and pickle go through here: a copied module gets one of its own


class MatchedLoss(MethodOverride):
    """``RetinaNet.compute_loss``, without the matrix of all pairs, and without matching where an assigner does it."""

    def __call__(
        self, targets: list[dict[str, Tensor]], head_outputs: dict[str, Tensor], anchors: list[Tensor]
    ) -> dict[str, Tensor]:
        """The loss terms of the detector's head."""
        detector = self.owner
        adapter = vars(detector).get("_lit_dense")
        criterion = adapter.criteria[""] if adapter is not None else None
        matched = [
            torch.full((len(a),), Matcher.BELOW_LOW_THRESHOLD, device=a.device)
            if t["boxes"].numel() == 0 or (criterion is not None and criterion.matcher is not None)
            else matches(detector.proposal_matcher, a, t["boxes"])
            for a, t in zip(anchors, targets, strict=True)
        ]
        terms: dict[str, Tensor] = detector.head.compute_loss(targets, head_outputs, anchors, matched)
        return terms


def matches(matcher: Any, anchors: Tensor, gt_boxes: Tensor) -> Tensor:
    """What a matcher finds: index of the ground truth of each anchor, -1 background, -2 ignored [K].

    Args:
        matcher: torchvision's ``Matcher``; any other is given the matrix of all IoU.
        anchors: Anchors of the image [K, 4].
        gt_boxes: Its ground truths, at least one [G, 4].
    """
    if type(matcher) is not Matcher:
        return torch.as_tensor(matcher(box_iou(gt_boxes, anchors)))
    return match_by_iou(
        anchors, gt_boxes, matcher.high_threshold, matcher.low_threshold, matcher.allow_low_quality_matches
    )


class JoinedOutputs(MethodOverride):
    """``RetinaNetHead.forward``, which in training writes the outputs of all levels in the order of anchors."""

    def __call__(self, x: list[Tensor]) -> dict[str, Tensor]:
        """Outputs of both towers."""
        head = self.owner
        if not head.training:
            outputs: dict[str, Tensor] = RetinaNetHead.forward(head, x)
            return outputs
        return {
            "cls_logits": tower_outputs(head.classification_head, x),
            "bbox_regression": tower_outputs(head.regression_head, x),
        }


class Detections(MethodOverride):
    """``RetinaNet.postprocess_detections``, computing scores and boxes of those alone that can be among the best."""

    def __call__(
        self, head_outputs: dict[str, list[Tensor]], anchors: list[list[Tensor]], image_shapes: list[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        """Per image ``boxes``, ``scores`` and ``labels``, best first."""
        detector = self.owner
        if records_graph():
            found: list[dict[str, Tensor]] = RetinaNet.postprocess_detections(
                detector, head_outputs, anchors, image_shapes
            )
            return found
        return [self._of_image(head_outputs, index, anchors[index], shape) for index, shape in enumerate(image_shapes)]

    def _of_image(
        self, head_outputs: dict[str, list[Tensor]], index: int, anchors: list[Tensor], shape: tuple[int, int]
    ) -> dict[str, Tensor]:
        detector = self.owner
        boxes, scores, labels = [], [], []
        for deltas, logits, own_anchors in zip(
            head_outputs["bbox_regression"], head_outputs["cls_logits"], anchors, strict=True
        ):
            level_scores, positions = top_scores(logits[index], detector.score_thresh, detector.topk_candidates)
            rows = positions.div(logits.shape[-1], rounding_mode="floor")
            decoded = detector.box_coder.decode_single(deltas[index][rows], own_anchors[rows])
            boxes.append(clip_boxes_to_image(decoded, shape))
            scores.append(level_scores)
            labels.append(positions % logits.shape[-1])
        found = {"boxes": torch.cat(boxes), "scores": torch.cat(scores), "labels": torch.cat(labels)}
        kept = suppress(**found, iou_thresh=detector.nms_thresh, number=detector.detections_per_img)
        return {name: values[kept] for name, values in found.items()}


class CachedAnchors(MethodOverride):
    """``AnchorGenerator.forward``, whose anchors of the last shapes are kept; all images share one tensor."""

    def __init__(self, owner: Any) -> None:
        super().__init__(owner)
        self._kept: OrderedDict[Any, tuple[Tensor, int, list[Tensor]]] = OrderedDict()

    def __call__(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Anchors of each image [K, 4]."""
        if records_graph():
            return self._compute(image_list, feature_maps)
        first = feature_maps[0]
        sizes = tuple(tuple(f.shape[-2:]) for f in feature_maps)
        key = (tuple(image_list.tensors.shape[-2:]), sizes, first.dtype, first.device)
        anchors, version, cells = self._kept.pop(key, (None, 0, []))
        if anchors is None or anchors._version != version or not _are_same(cells, self.owner.cell_anchors):
            with torch.inference_mode(False):  # what validation leaves here, training must be able to use
                anchors = self._compute(ImageList(image_list.tensors, image_list.image_sizes[:1]), feature_maps)[0]
            cells = list(self.owner.cell_anchors)
        self._kept[key] = (anchors, anchors._version, cells)
        if len(self._kept) > SHAPES_KEPT:
            self._kept.popitem(last=False)
        return [anchors] * len(image_list.image_sizes)

    def _compute(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        anchors: list[Tensor] = AnchorGenerator.forward(self.owner, image_list, feature_maps)
        return anchors


def _are_same(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return len(some) == len(others) and all(a is b for a, b in zip(some, others, strict=True))


ON_DETECTORS: dict[str, type[MethodOverride]] = {"compute_loss": MatchedLoss, "postprocess_detections": Detections}


def install(detector: RetinaNet) -> None:
    """Put the stand-ins into a detector, except where it has methods of its own."""
    for name, stand_in in ON_DETECTORS.items():
        if _is_stock(detector, RetinaNet, name):
            setattr(detector, name, stand_in(detector))
    if _is_stock(detector.head, RetinaNetHead, "forward"):
        detector.head.forward = JoinedOutputs(detector.head)
    generator = detector.anchor_generator
    if all(_is_stock(generator, AnchorGenerator, name) for name in ("forward", "grid_anchors", "set_cell_anchors")):
        generator.forward = CachedAnchors(generator)


def remove(detector: RetinaNet) -> None:
    """Take the stand-ins away; does nothing where there are none."""
    forwards = [(module, ["forward"]) for module in (detector.head, detector.anchor_generator)]
    for owner, names in [(detector, list(ON_DETECTORS)), *forwards]:
        for name in names:
            if isinstance(vars(owner).get(name), MethodOverride):
                delattr(owner, name)


def _is_stock(owner: nn.Module, stock: type, name: str) -> bool:
    return name not in vars(owner) and getattr(type(owner), name, None) is getattr(stock, name)
