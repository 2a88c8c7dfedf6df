"""Simplified optimal transport assignment, SimOTA (https://arxiv.org/abs/2107.08430)."""

import torch
from torch import Tensor
from torchvision.ops import box_iou

from .iou import paired_iou
from .matching import gt_chunks
from .stable_top import stable_smallest

LEAST_PROBABILITY = 1e-7
FAR = 1e6
"""Cost of an anchor whose centre is not near the ground truth's."""


def centres_near(centres: Tensor, strides: Tensor, gt_boxes: Tensor, radius: float) -> Tensor:
    """Test which anchors have their centre near that of which box (SimOTA, https://arxiv.org/abs/2107.08430).

    Args:
        centres: Centres of the anchors, x y [K, 2].
        strides: Size of the cell of each anchor in pixels, x y [K, 2].
        gt_boxes: Ground-truth boxes, x1 y1 x2 y2 [G, 4].
        radius: Largest distance in x and in y, in cells.

    Returns:
        Whether the centre of an anchor is closer than ``radius`` cells to the centre of a box [G, K].
    """
    reach, middle = radius * strides, (gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2
    near = (centres[:, 0] - middle[:, :1]).abs() < reach[:, 0]
    return near & ((centres[:, 1] - middle[:, 1:]).abs() < reach[:, 1])


def simota_match(
    scores: Tensor,
    boxes: Tensor,
    near: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    iou_weight: float = 3.0,
    number: int = 10,
) -> tuple[Tensor, Tensor]:
    """Match candidates by their classification and box cost (SimOTA, https://arxiv.org/abs/2107.08430).

    ``cost = sum over classes of BCE(sqrt(score), target) - iou_weight * log(IoU)``, plus 1e6 for anchors that are not
    near the ground truth. Each ground truth takes its k anchors of lowest cost. k is the sum of its ``number`` largest
    IoUs, rounded down, at least 1. An anchor that is taken twice belongs to the ground truth with which its cost is
    lowest. Equal costs are resolved by the lower index.

    Args:
        scores: Scores of the candidates [N, C].
        boxes: Predicted boxes of the candidates in pixels, x1 y1 x2 y2 [N, 4].
        near: Whether a candidate is near a ground truth [G, N].
        gt_boxes: Ground-truth boxes [G, 4].
        gt_labels: Classes of the ground truths [G].
        iou_weight: Weight of the box cost.
        number: Number of IoUs that are added up to k.

    Returns:
        Index of the ground truth of each candidate, -1 for background [N]; and the IoU of its predicted box, 0 for
        background [N].
    """
    count = len(boxes)
    p = scores.sqrt().clamp(LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    negative = -(-p).log1p().sum(1)  # cost of a target of 0 in all classes
    taken = torch.zeros(count, dtype=torch.int64, device=boxes.device)
    taker = torch.full_like(taken, len(gt_boxes))
    lowest, best_gt = torch.full_like(negative, torch.inf), torch.zeros_like(taken)
    for rows in gt_chunks(count, len(gt_boxes)):
        own = p[:, gt_labels[rows]].t()
        ious = box_iou(gt_boxes[rows], boxes)
        costs = negative + (-own).log1p() - own.log() - iou_weight * (ious + 1e-8).log()
        costs = (costs + FAR * ~near[rows]).nan_to_num(nan=torch.inf)
        numbers = ious.topk(min(number, count), dim=1).values.sum(1).nan_to_num(0.0).int().clamp(min=1)
        chosen = stable_smallest(costs, numbers.long(), number)
        gt = torch.arange(rows.start, rows.start + len(chosen), device=boxes.device).unsqueeze(1)
        taken += chosen.sum(0)
        taker = taker.minimum(torch.where(chosen, gt, len(gt_boxes)).amin(0))
        cost, first = costs.min(0)
        best_gt = torch.where(cost < lowest, first + rows.start, best_gt)
        lowest = lowest.minimum(cost)
    matched = torch.where(taken > 1, best_gt, torch.where(taken == 1, taker, -1))
    own_ious = paired_iou(boxes, gt_boxes[matched.clamp(min=0)])
    return matched, torch.where(matched >= 0, own_ious, 0.0)
