"""Assignment of the best anchors of each object, whatever their IoU."""

import torch
from torch import Tensor
from torchvision.ops import box_iou

from ..core.errors import check_range
from ..functional.matching import gt_chunks, match_by_iou
from .base import Assigner, AssignInput


class TopNAssigner(Assigner):
    """The N anchors of largest IoU with an object are positive, all others background (https://arxiv.org/abs/1912.05086).

    A positive anchor stands for the object that it overlaps most, which may be another than the one that chose it. No
    anchor is ignored. Anchors that do not touch any object stay background.

    Args:
        number: Anchors of each object, at least 1.

    Raises:
        UsageError: If the number is below 1.
    """

    def __init__(self, number: int = 30) -> None:
        super().__init__()
        self.number = int(check_range("top_n", "number", number, 1))

    def forward(self, image: AssignInput) -> Tensor:
        """Index of the matched ground truth of each anchor; -1 background [K]."""
        anchors, gt_boxes = image.anchors, image.gt_boxes
        number, nobody = min(self.number, len(anchors)), len(anchors)
        chosen = torch.zeros(len(anchors) + 1, dtype=torch.bool, device=anchors.device)
        for rows in gt_chunks(len(anchors), len(gt_boxes)):
            ious, nearest = box_iou(gt_boxes[rows], anchors).topk(number, dim=1)
            chosen[torch.where(ious > 0, nearest, nobody).flatten()] = True
        touching = torch.finfo(torch.float32).tiny  # the least IoU
        overlapped = match_by_iou(anchors, gt_boxes, touching, touching, low_quality=False)
        return torch.where(chosen[:-1], overlapped, -1)
