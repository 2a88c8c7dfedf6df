"""Assignment of the best anchors of each object, whatever their IoU."""

import torch
from torch import Tensor
from torchvision.ops import box_iou

from ..errors import check_range
from ..samples import Geometry
from .base import Assigner


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

    def forward(self, anchors: Tensor, gt_boxes: Tensor, geometry: Geometry | None) -> Tensor:
        """Index of the matched ground truth of each anchor; -1 background [K]."""
        ious = box_iou(gt_boxes, anchors)
        best, gt = ious.max(0)
        chosen = torch.zeros_like(best, dtype=torch.bool)
        chosen[ious.topk(min(self.number, len(anchors)), dim=1).indices.flatten()] = True
        return torch.where(chosen & (best > 0), gt, -1)
