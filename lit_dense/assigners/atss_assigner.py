"""Adaptive training sample selection."""

import torch
from torch import Tensor
from torchvision.ops import box_iou

from ..errors import UsageError, check_range
from ..samples import Geometry
from .base import Assigner


class ATSSAssigner(Assigner):
    """Adaptive training sample selection (https://arxiv.org/abs/1912.02424): a threshold of IoU for each object.

    Candidates of an object are the anchors nearest to its centre on each level. Positive are those whose IoU is at
    least the mean of the candidates' plus their standard deviation and whose centre is inside the object. An anchor
    that several objects want takes that of largest IoU. No anchor is ignored.

    Args:
        number: Locations on each level, each with all its anchors, that are candidates of an object; at least 1.

    Raises:
        UsageError: If the number is below 1, or, in training, if the detector does not tell the sizes of its levels.
    """

    def __init__(self, number: int = 9) -> None:
        super().__init__()
        self.number = int(check_range("atss", "number", number, 1))

    def forward(self, anchors: Tensor, gt_boxes: Tensor, geometry: Geometry | None) -> Tensor:
        """Index of the matched ground truth of each anchor; -1 background [K]."""
        if geometry is None:
            raise UsageError("atss: this detector does not tell the sizes of its levels.")
        cells = [height * width for height, width in geometry.level_sizes]
        per_cell = len(anchors) // sum(cells)
        ious = box_iou(gt_boxes, anchors)
        centres = (anchors[:, :2] + anchors[:, 2:]) / 2
        distance = torch.cdist((gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2, centres)
        candidates, start = [], 0
        for cell_count in cells:
            level = distance[:, start : start + cell_count * per_cell]
            nearest = level.topk(min(self.number * per_cell, level.shape[1]), dim=1, largest=False).indices
            candidates.append(nearest + start)
            start += cell_count * per_cell
        index = torch.cat(candidates, 1)
        candidate_ious = ious.gather(1, index)
        threshold = candidate_ious.mean(1, keepdim=True) + candidate_ious.std(1, keepdim=True)
        inside = _inside(centres[index], gt_boxes.unsqueeze(1))
        wanted = torch.zeros_like(ious).scatter_(1, index, candidate_ious * ((candidate_ious >= threshold) & inside))
        best, gt = wanted.max(0)
        return torch.where(best > 0, gt, -1)


def _inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Whether points are strictly inside boxes, of shapes that broadcast [..., 2], [..., 4] -> [...]."""
    return ((points > boxes[..., :2]) & (points < boxes[..., 2:])).all(-1)
