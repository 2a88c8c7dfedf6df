"""Assignment of the N best anchors of each object (https://arxiv.org/abs/1912.05086), as an assigner."""

import torch
from torch import Tensor
from torchvision.ops import box_iou

from ..core.errors import check_range
from ..functional.matching import gt_chunks, match_by_iou
from .base import Assigner, AssignInput


class TopNAssigner(Assigner):
    """Assigns to each object its N anchors of largest IoU, without a threshold (https://arxiv.org/abs/1912.05086).

    All other anchors are background; no anchor is ignored. A positive anchor is matched with the object of largest IoU,
    which can differ from the object that selected it. Anchors that overlap no object are background.

    Args:
        number: Number of anchors of each object, at least 1.

    Raises:
        UsageError: If the number is below 1.
    """

    def __init__(self, number: int = 30) -> None:
        super().__init__()
        self.number = int(check_range("top_n", "number", number, 1))

    def forward(self, image: AssignInput) -> Tensor:
        """Match anchors: the index of each anchor's ground truth, -1 background [K]."""
        anchors, gt_boxes = image.anchors, image.gt_boxes
        number, unused = min(self.number, len(anchors)), len(anchors)  # the last entry collects anchors without overlap
        selected = torch.zeros(len(anchors) + 1, dtype=torch.bool, device=anchors.device)
        for rows in gt_chunks(len(anchors), len(gt_boxes)):
            ious, nearest = box_iou(gt_boxes[rows], anchors).topk(number, dim=1)
            selected[torch.where(ious > 0, nearest, unused).flatten()] = True
        smallest_iou = torch.finfo(torch.float32).tiny
        matched = match_by_iou(anchors, gt_boxes, smallest_iou, smallest_iou, low_quality=False)
        return torch.where(selected[:-1], matched, -1)
