"""Ignore regions: places of an image in which objects may be unlabelled, so that anchors there are not background."""

import torch
from torch import Tensor

from .matching import gt_chunks

IGNORE_IOF = 0.5
"""A box is in a region if more than this share of its own area is."""


@torch.no_grad()
def in_regions(boxes: Tensor, regions: Tensor, threshold: float = IGNORE_IOF) -> Tensor:
    """Return whether each box lies in a region, by the largest intersection over its own area (IoF).

    Args:
        boxes: Boxes, x1 y1 x2 y2 [K, 4].
        regions: Ignore regions in the same format [M, 4].
        threshold: Smallest share, exclusive.

    Returns:
        A mask [K]. A box without area is in no region.

    Example:
        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10], [6, 0, 16, 10], [0, 0, 100, 100]])
        >>> in_regions(boxes, torch.tensor([[0.0, 0, 10, 20]])).tolist()
        [True, True, False, False]
    """
    boxes, regions = boxes.float(), regions.to(boxes.device).float()
    areas = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)
    inside = torch.zeros_like(areas)
    for rows in gt_chunks(len(boxes), len(regions)):
        own = regions[rows, None]
        sides = torch.minimum(boxes[:, 2:], own[..., 2:]) - torch.maximum(boxes[:, :2], own[..., :2])
        inside = inside.maximum(sides.clamp(min=0).prod(-1).amax(0))
    return inside > threshold * areas


def without_ignored(matched_idxs: Tensor, boxes: Tensor, regions: Tensor | None) -> Tensor:
    """Replace background by ignored for boxes in ignore regions; matched boxes stay matched.

    Args:
        matched_idxs: Index of the matched ground truth of each box; -1 background, -2 ignored [K].
        boxes: Boxes, x1 y1 x2 y2 [K, 4].
        regions: Ignore regions in the same format [M, 4]; None for none.
    """
    if regions is None or not len(regions):
        return matched_idxs
    return torch.where((matched_idxs == -1) & in_regions(boxes, regions), -2, matched_idxs)
