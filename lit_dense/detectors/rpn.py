"""The stage ``rpn`` of Faster R-CNN: the loss of torchvision's region proposal network."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..core.batch_format import UNKNOWN_LABELS
from ..core.errors import UsageError
from ..functional.ignore_regions import in_regions
from .base import Terms
from .ignore_regions import ScaledIgnoreRegions, regions_of
from .torchvision_batch import collect_samples

TERMS = {"classification": "loss_objectness", "bbox_regression": "loss_rpn_box_reg"}
"""torchvision's names of the criterion's terms."""


class RPNStage(ScaledIgnoreRegions):
    """The stage ``rpn`` of an adapter: objectness and boxes of the anchors that ``detector.rpn`` samples.

    The network keeps its own matcher and sampler. Its ``compute_loss`` gets neither the anchors nor the matches, so
    they are recorded when anchors are matched.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__(detector)
        self._matched: tuple[list[Tensor], Sequence[dict[str, Tensor]], list[Tensor]] | None = None
        self._rpn_extra: Terms | None = None
        self._rpn_image_sizes: Sequence[tuple[int, int]] | None = None

    def __getstate__(self) -> dict[str, Any]:  # a copy contains no batch
        return {**super().__getstate__(), "_matched": None, "_rpn_extra": None}

    def install_rpn(self) -> None:
        """Replace the loss of the region proposal network."""
        rpn = self.detector.rpn
        self.hook(rpn, self._begin_rpn, pre=True)
        self.override(rpn, "assign_targets_to_anchors", "assign_targets_to_anchors")
        self.override(rpn, "compute_loss", "rpn_loss")
        self.hook(rpn, self._add_rpn_extra)

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: Sequence[dict[str, Tensor]]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Match anchors as the network does, and record anchors, targets and matched boxes for the loss.

        Negatives in ignore regions get the label -1, with which the network does not sample them.
        """
        rpn = self.detector.rpn
        labels, boxes = type(rpn).assign_targets_to_anchors(rpn, anchors, targets)
        images = zip(labels, anchors, targets, strict=True)
        labels = [negatives_left_out(own, of_image, regions_of(target)) for own, of_image, target in images]
        self._matched = anchors, targets, boxes
        return labels, boxes

    def rpn_loss(
        self, objectness: Tensor, deltas: Tensor, labels: list[Tensor], regression_targets: Any
    ) -> tuple[Tensor, Tensor]:
        """Compute the criterion's terms of objectness and boxes; replaces the network's ``compute_loss``.

        Args:
            objectness: Objectness logits of the anchors of all images [A, 1].
            deltas: Box deltas [A, 4].
            labels: For each image 1 for positive, 0 for negative and -1 for ignored anchors [K].
            regression_targets: Not used.

        Raises:
            UsageError: If the network has not called ``assign_targets_to_anchors`` before.
            NonFiniteLossError: If a term is NaN or infinite.
        """
        if self._matched is None:
            name = type(self.detector.rpn).__name__
            raise UsageError(f"{name} does not call assign_targets_to_anchors before compute_loss: leave stage 'rpn'.")
        (anchors, targets, boxes), self._matched = self._matched, None
        rpn = self.detector.rpn
        positive, negative = rpn.fg_bg_sampler(labels)  # once, as in torchvision: the random state stays the same
        matched_idxs = [
            _matched_idxs(pos, neg, own, target["boxes"])
            for pos, neg, own, target in zip(positive, negative, boxes, targets, strict=True)
        ]
        objects = [{**t, "labels": torch.ones_like(t["boxes"][:, 0], dtype=torch.int64)} for t in targets]
        for one in objects:  # the only column is that of any object, for which no class is unknown
            one.pop(UNKNOWN_LABELS, None)
        samples = collect_samples(
            objects,
            objectness.reshape(-1, 1),
            deltas,
            anchors,
            matched_idxs,
            first_label=1,
            box_coder=rpn.box_coder,
            known_image_sizes=self._rpn_image_sizes,
        )
        self._rpn_extra = self.terms("rpn", samples, targets)
        return self._rpn_extra.pop("loss_objectness"), self._rpn_extra.pop("loss_rpn_box_reg")

    def _begin_rpn(self, rpn: nn.Module, inputs: Any) -> None:
        self._matched = self._rpn_extra = None  # an exception may have left old ones
        self._rpn_image_sizes = inputs[0].image_sizes if inputs else None

    def _add_rpn_extra(self, rpn: nn.Module, inputs: Any, outputs: tuple[Any, Terms]) -> tuple[Any, Terms] | None:
        if not rpn.training:
            return None
        if self._rpn_extra is None:
            raise UsageError(f"{type(rpn).__name__} does not call compute_loss: leave stage 'rpn' as it is.")
        (proposals, terms), extra, self._rpn_extra = outputs, self._rpn_extra, None
        return proposals, {**terms, **extra}


def _matched_idxs(positive: Tensor, negative: Tensor, boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """Return the matched ground truth of each anchor of an image; -1 background, -2 not sampled [K].

    Args:
        positive: Whether an anchor was sampled as a positive [K].
        negative: Whether an anchor was sampled as a negative [K].
        boxes: Box of the matched ground truth of each anchor [K, 4].
        gt_boxes: Ground-truth boxes of the image [G, 4].
    """
    matched_idxs = torch.where(negative.bool(), -1, -2)
    if len(gt_boxes):  # the network gives boxes only, so their indices are looked up
        rows = positive.nonzero().squeeze(1)
        matched_idxs[rows] = torch.cdist(boxes[rows], gt_boxes.to(boxes.dtype), p=1.0).argmin(1)
    return matched_idxs


def negatives_left_out(labels: Tensor, boxes: Tensor, regions: Tensor | None) -> Tensor:
    """Replace the label of negatives in ignore regions: torchvision's samplers do not draw the label -1.

    Args:
        labels: Label of each anchor or proposal, 0 for negatives [K].
        boxes: Their boxes [K, 4].
        regions: Ignore regions [M, 4]; None for none.
    """
    if regions is None or not len(regions):
        return labels
    return torch.where((labels == 0) & in_regions(boxes, regions), -1, labels)
