"""Assignment of all anchors inside an object, for weighters that decide what each of them counts."""

import torch
from torch import Tensor
from torchvision.ops import box_area

from ..functional.matching import gt_chunks
from ..functional.task_alignment import centres_inside
from .base import Assigner, AssignInput


class InsideAssigner(Assigner):
    """Matches every anchor whose centre is inside an object, of several objects with the smallest.

    All others are background; no anchor is ignored. The predictions are not read.
    """

    def forward(self, image: AssignInput) -> Tensor:
        """Match anchors: the index of each anchor's ground truth, -1 background [K]."""
        centres, gt_boxes = image.centres, image.gt_boxes.float()
        areas = box_area(gt_boxes)
        best = torch.full((len(centres),), torch.inf, device=centres.device)
        matched = torch.full((len(centres),), -1, device=centres.device)
        for rows in gt_chunks(len(centres), len(gt_boxes)):
            inside = centres_inside(centres, gt_boxes[rows])
            area, index = torch.where(inside, areas[rows].unsqueeze(1), torch.inf).min(0)
            matched = torch.where(area < best, index + rows.start, matched)
            best = best.minimum(area)
        return matched
