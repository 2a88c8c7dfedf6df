"""Task-aligned assignment, TAL (https://arxiv.org/abs/2108.07755)."""

from typing import Literal

import torch
from torch import Tensor
from torchvision.ops import complete_box_iou_loss

from .iou import paired_iou
from .matching import gt_chunks
from .stable_top import stable_smallest

Overlap = Literal["iou", "ciou"]


def centres_inside(centres: Tensor, boxes: Tensor, min_side: float = 0.0) -> Tensor:
    """Test which points lie inside which boxes, for task-aligned assignment (https://arxiv.org/abs/2108.07755).

    Args:
        centres: Points, x y [K, 2].
        boxes: Boxes, x1 y1 x2 y2 [G, 4].
        min_side: Boxes with shorter sides are enlarged to it about their centres.

    Returns:
        Whether a point lies inside a box, and not on its border [G, K].
    """
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    low, high = middle - half.clamp(min=min_side / 2), middle + half.clamp(min=min_side / 2)
    x, y = centres.unbind(1)
    inside = (x > low[:, :1]) & (x < high[:, :1])
    return inside & (y > low[:, 1:]) & (y < high[:, 1:])


def task_aligned_match(
    scores: Tensor,
    boxes: Tensor,
    centres: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    alpha: float = 1.0,
    beta: float = 6.0,
    number: int = 13,
    overlap: Overlap = "iou",
    min_side: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Match anchors by ``score ** alpha * overlap ** beta`` (TAL, https://arxiv.org/abs/2108.07755).

    The candidates of a ground truth are the anchors whose centre is inside its box. Its ``number`` candidates of
    largest metric above 0 are positive. An anchor that several ground truths select belongs to the one of largest
    overlap. Equal metrics and overlaps are resolved by the lower index. The overlaps of inside pairs only are computed,
    in chunks of ground truths.

    Args:
        scores: Scores of the anchors [K, C].
        boxes: Predicted boxes in pixels, x1 y1 x2 y2 [K, 4].
        centres: Centres of the anchors, x y [K, 2].
        gt_boxes: Ground-truth boxes [G, 4].
        gt_labels: Classes of the ground truths [G].
        alpha: Exponent of the score.
        beta: Exponent of the overlap.
        number: Number of positives of each ground truth, before conflicts.
        overlap: ``iou``, or ``ciou`` for the IoU minus CIoU's penalties, at least 0.
        min_side: Smallest side of a box in the test of centres, in pixels.

    Returns:
        Index of the ground truth of each anchor, -1 for background [K]; and the soft target of each anchor: its metric,
        scaled so that the largest target of a ground truth is the largest overlap of its positives; 0 for background
        [K].
    """
    pairs: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for rows in gt_chunks(len(centres), len(gt_boxes)):
        inside = centres_inside(centres, gt_boxes[rows], min_side)
        gt, anchor = inside.nonzero().unbind(1)
        overlaps = _overlaps(boxes[anchor], gt_boxes[rows][gt], overlap)
        metric = scores[anchor, gt_labels[rows][gt]] ** alpha * overlaps**beta
        costs = torch.full(inside.shape, torch.inf, dtype=metric.dtype, device=metric.device)
        costs[gt, anchor] = torch.where(metric > 0, -metric, torch.inf)
        chosen = stable_smallest(costs, number, number)[gt, anchor]
        pairs.append((gt[chosen] + rows.start, anchor[chosen], metric[chosen], overlaps[chosen]))
    matched = torch.full((len(centres),), -1, device=centres.device)
    targets = torch.zeros(len(centres), device=centres.device, dtype=boxes.dtype)
    if not pairs:
        return matched, targets
    gt, anchor, metric, overlaps = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    kept = first_of_best(overlaps, anchor, gt, len(centres), len(gt_boxes))
    gt, anchor, metric, overlaps = gt[kept], anchor[kept], metric[kept], overlaps[kept]
    matched[anchor] = gt
    most = metric.new_zeros(len(gt_boxes)).scatter_reduce_(0, gt, metric, "amax")
    best = overlaps.new_zeros(len(gt_boxes)).scatter_reduce_(0, gt, overlaps, "amax")
    targets[anchor] = (metric / most[gt] * best[gt]).to(targets.dtype)
    return matched, targets


def first_of_best(values: Tensor, anchor: Tensor, gt: Tensor, num_anchors: int, num_gt: int) -> Tensor:
    """Mark one pair of each anchor: that of largest value, and of equal ones that of the first ground truth.

    Task-aligned assignment (https://arxiv.org/abs/2108.07755) resolves conflicts with it.

    Args:
        values: Value of each pair, above -infinity [N].
        anchor: Anchor of each pair [N].
        gt: Ground truth of each pair [N].
        num_anchors: K, number of anchors.
        num_gt: G, number of ground truths.

    Returns:
        Whether a pair is kept [N].
    """
    top = values.new_full((num_anchors,), -torch.inf).scatter_reduce_(0, anchor, values, "amax")
    is_top = values == top[anchor]
    first = torch.full((num_anchors,), num_gt, device=gt.device)
    first.scatter_reduce_(0, anchor, torch.where(is_top, gt, num_gt), "amin")
    return is_top & (gt == first[anchor])


def _overlaps(boxes: Tensor, gt_boxes: Tensor, overlap: Overlap) -> Tensor:
    if overlap == "iou":
        return paired_iou(boxes, gt_boxes)
    ciou: Tensor = 1 - complete_box_iou_loss(boxes, gt_boxes, reduction="none")
    return ciou.nan_to_num(nan=0.0).clamp(min=0)  # NaN: the aspect ratio of a box without height
