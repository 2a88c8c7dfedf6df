"""Adaptive training sample selection, ATSS (https://arxiv.org/abs/1912.02424), as an assigner."""

import torch
from torch import Tensor

from ..core.errors import UsageError, check_range
from ..functional.iou import paired_iou
from ..functional.matching import gt_chunks
from .base import Assigner, AssignInput


class ATSSAssigner(Assigner):
    """Adaptive training sample selection, ATSS (https://arxiv.org/abs/1912.02424): one IoU threshold per object.

    The candidates of an object are the anchors closest to its centre on each pyramid level. The IoU threshold is the
    mean plus the standard deviation of the candidates' IoUs. A candidate is positive if its IoU reaches the threshold
    and its centre is inside the object. An anchor that is positive for several objects is matched with the one of
    largest IoU. No anchor is ignored.

    Args:
        number: Number of candidate locations of an object on each level, each with all its anchors; at least 1.

    Raises:
        UsageError: If the number is below 1, or in training if the detector does not provide the sizes of its levels.
    """

    def __init__(self, number: int = 9) -> None:
        super().__init__()
        self.number = int(check_range("atss", "number", number, 1))

    def forward(self, image: AssignInput) -> Tensor:
        """Match anchors: the index of each anchor's ground truth, -1 background [K]."""
        geometry = image.geometry
        if geometry is None:
            raise UsageError("atss: this detector does not provide the sizes of its levels.")
        anchors, gt_boxes = image.anchors.float(), image.gt_boxes.float()  # in half precision, centres would coincide
        number = len(anchors)
        levels = list(zip(geometry.anchors_of_levels(number), geometry.anchors_of_cells(number), strict=True))
        matched = torch.full((len(anchors),), -1, device=anchors.device)
        best = torch.zeros(len(anchors), device=anchors.device)
        for rows in gt_chunks(len(anchors), len(gt_boxes)):
            index = self._candidates(anchors, gt_boxes[rows], levels)
            ious = _positive_ious(anchors[index], gt_boxes[rows, None])
            top = torch.zeros_like(best).scatter_reduce_(0, index.flatten(), ious.flatten(), "amax")
            is_top = (ious > 0) & (ious == top[index])
            gt = torch.arange(rows.start, rows.start + len(index), device=index.device).unsqueeze(1)
            first = torch.where(is_top, gt, len(gt_boxes)).flatten()  # of equal IoUs, the first ground truth
            first = torch.full_like(matched, len(gt_boxes)).scatter_reduce_(0, index.flatten(), first, "amin")
            matched = torch.where(top > best, first, matched)
            best = best.maximum(top)
        return matched

    def _candidates(self, anchors: Tensor, gt_boxes: Tensor, levels: list[tuple[int, int]]) -> Tensor:
        """Return the anchors closest to the centre of each ground truth on each level [G, N].

        Args:
            anchors: Anchors of all levels [K, 4].
            gt_boxes: Ground-truth boxes [G, 4].
            levels: Number of anchors of each level, and of each of its cells.
        """
        centres, gt_centres = _centres(anchors), _centres(gt_boxes).unsqueeze(1)
        candidates, start = [], 0
        for number, per_cell in levels:
            distance = (centres[start : start + number] - gt_centres).square_().sum(2)
            nearest = distance.topk(min(self.number * per_cell, number), dim=1, largest=False).indices
            candidates.append(nearest + start)
            start += number
        return torch.cat(candidates, 1)


def _positive_ious(candidates: Tensor, gt_boxes: Tensor) -> Tensor:
    """Compute the IoU of candidates [G, N, 4] with ground truths [G, 1, 4], 0 if not positive [G, N]."""
    ious = paired_iou(candidates.flatten(0, 1), gt_boxes.expand_as(candidates).flatten(0, 1)).view(candidates.shape[:2])
    threshold = ious.mean(1, keepdim=True) + ious.std(1, keepdim=True)
    centres = _centres(candidates)
    inside = ((centres > gt_boxes[..., :2]) & (centres < gt_boxes[..., 2:])).all(-1)
    return torch.where((ious >= threshold) & inside, ious, 0.0)


def _centres(boxes: Tensor) -> Tensor:
    return (boxes[..., :2] + boxes[..., 2:]) / 2
