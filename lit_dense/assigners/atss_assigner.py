"""Adaptive training sample selection."""

import torch
from torch import Tensor

from ..core.errors import UsageError, check_range
from ..functional.iou import paired_iou
from ..functional.matching import gt_chunks
from .base import Assigner, AssignInput


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

    def forward(self, image: AssignInput) -> Tensor:
        """Index of the matched ground truth of each anchor; -1 background [K]."""
        geometry = image.geometry
        if geometry is None:
            raise UsageError("atss: this detector does not tell the sizes of its levels.")
        anchors, gt_boxes = image.anchors.float(), image.gt_boxes.float()  # half precision cannot tell centres apart
        number = len(anchors)
        levels = list(zip(geometry.anchors_of_levels(number), geometry.anchors_of_cells(number), strict=True))
        matched = torch.full((len(anchors),), -1, device=anchors.device)
        best = torch.zeros(len(anchors), device=anchors.device)
        for rows in gt_chunks(len(anchors), len(gt_boxes)):
            index = self._nearest(anchors, gt_boxes[rows], levels)
            wanted = _wanted(anchors[index], gt_boxes[rows, None])
            top = torch.zeros_like(best).scatter_reduce_(0, index.flatten(), wanted.flatten(), "amax")
            is_top = (wanted > 0) & (wanted == top[index])
            gt = torch.arange(rows.start, rows.start + len(index), device=index.device).unsqueeze(1)
            first = torch.where(is_top, gt, len(gt_boxes)).flatten()  # of equals
            first = torch.full_like(matched, len(gt_boxes)).scatter_reduce_(0, index.flatten(), first, "amin")
            matched = torch.where(top > best, first, matched)
            best = best.maximum(top)
        return matched

    def _nearest(self, anchors: Tensor, gt_boxes: Tensor, levels: list[tuple[int, int]]) -> Tensor:
        """The anchors nearest to each ground truth's centre, of levels with so many anchors, and each cell [G, N]."""
        centres, gt_centres = _centres(anchors), _centres(gt_boxes).unsqueeze(1)
        found, start = [], 0
        for number, per_cell in levels:
            distance = (centres[start : start + number] - gt_centres).square_().sum(2)
            nearest = distance.topk(min(self.number * per_cell, number), dim=1, largest=False).indices
            found.append(nearest + start)
            start += number
        return torch.cat(found, 1)


def _wanted(candidates: Tensor, gt_boxes: Tensor) -> Tensor:
    """IoU of the candidates [G, N, 4] that a ground truth [G, 1, 4] takes, 0 of the others [G, N]."""
    ious = paired_iou(candidates.flatten(0, 1), gt_boxes.expand_as(candidates).flatten(0, 1)).view(candidates.shape[:2])
    threshold = ious.mean(1, keepdim=True) + ious.std(1, keepdim=True)
    centres = _centres(candidates)
    inside = ((centres > gt_boxes[..., :2]) & (centres < gt_boxes[..., 2:])).all(-1)
    return torch.where((ious >= threshold) & inside, ious, 0.0)


def _centres(boxes: Tensor) -> Tensor:
    return (boxes[..., :2] + boxes[..., 2:]) / 2
