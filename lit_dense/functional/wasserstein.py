"""Wasserstein distance of boxes as Gaussians, for the assignment of small objects (https://arxiv.org/abs/2110.13389)."""

import torch
from torch import Tensor

from .matching import gt_chunks
from .stable_top import stable_smallest
from .task_alignment import first_of_best


def wasserstein_distances(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """Compute the squared 2-Wasserstein distance of boxes as Gaussians (https://arxiv.org/abs/2110.13389).

    It is the squared distance of the centres plus a quarter of the squared differences of width and height. The
    normalised Wasserstein distance is ``exp(-sqrt(distance) / constant)``.

    Args:
        boxes: Boxes in pixels, x1 y1 x2 y2 [K, 4].
        gt_boxes: Ground-truth boxes [G, 4].

    Returns:
        Squared distance of each pair, in square pixels [G, K].

    Example:
        >>> wasserstein_distances(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[3.0, 0, 13, 10], [0, 0, 10, 14]]))
        tensor([[9.],
                [8.]])
    """
    total: Tensor | None = None
    for low, high, factor in ((0, 2, 0.5), (1, 3, 0.5)):
        for sign in (1, -1):  # centre, then side
            own = (boxes[:, high] + sign * boxes[:, low]) * factor
            other = (gt_boxes[:, high] + sign * gt_boxes[:, low]) * factor
            squared = (own - other.unsqueeze(1)).square_()
            total = squared if total is None else total.add_(squared)
    return torch.as_tensor(total)


def nearest_match(anchors: Tensor, gt_boxes: Tensor, number: int) -> Tensor:
    """Match each ground truth with its anchors of smallest Wasserstein distance (https://arxiv.org/abs/2110.13389).

    An anchor that several ground truths select belongs to the nearest. Equal distances are resolved by the lower index.

    Args:
        anchors: Anchors in pixels, x1 y1 x2 y2 [K, 4].
        gt_boxes: Ground-truth boxes [G, 4].
        number: Number of anchors of each ground truth.

    Returns:
        Index of the ground truth of each anchor, -1 for background [K].
    """
    matched = torch.full((len(anchors),), -1, device=anchors.device)
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    for rows in gt_chunks(len(anchors), len(gt_boxes)):
        distances = wasserstein_distances(anchors, gt_boxes[rows])
        gt, anchor = stable_smallest(distances, number, number).nonzero().unbind(1)
        pairs.append((gt + rows.start, anchor, distances[gt, anchor]))
    if not pairs:
        return matched
    gt, anchor, distance = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    kept = first_of_best(-distance, anchor, gt, len(anchors), len(gt_boxes))
    matched[anchor[kept]] = gt[kept]
    return matched
