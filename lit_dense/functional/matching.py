"""Anchors matched with ground truths by thresholds of IoU (https://arxiv.org/abs/1506.01497), as torchvision does."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torchvision.ops import box_area

BLOCK = 128
"""Anchors looked at together: some cells in a row of a grid, which a box misses or meets as a whole."""
FEW_PAIRS = 2**17
"""Pairs of anchor and ground truth that one piece has done with before blocks are chosen."""
PAIRS_AT_ONCE = 2**22
"""Pairs in one piece: 16 MiB of float32, six times at once."""


def match_by_iou(
    anchors: Tensor, gt_boxes: Tensor, positive: float = 0.5, negative: float = 0.4, low_quality: bool = True
) -> Tensor:
    """Match by IoU thresholds (https://arxiv.org/abs/1506.01497): what torchvision's ``box_iou`` and ``Matcher`` find.

    The result is the same to the last bit, with ties and with boxes that are empty, inside out, infinite or no numbers,
    but the matrix of many pairs never exists. A processor takes one ground truth after another, each with the blocks of
    anchors that it can touch; another device takes all anchors with as many ground truths as a piece of memory holds,
    and the host does not wait for it.

    Args:
        anchors: Boxes in pixels, x1 y1 x2 y2, of any origin; it is fast where neighbours stand side by side [K, 4].
        gt_boxes: Ground truths [G, 4].
        positive: IoU from which an anchor is positive.
        negative: IoU below which it is background; in between it is ignored.
        low_quality: Whether the best anchors of a ground truth are positive even below the threshold.

    Returns:
        Ground truth of each anchor, -1 background, -2 ignored; background alone where there is no ground truth [K].

    Example:
        >>> anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 22], [50, 50, 60, 60]])
        >>> match_by_iou(anchors, torch.tensor([[0.0, 0, 10, 10]]))
        tensor([ 0, -2, -1])
    """
    if not len(gt_boxes) or not len(anchors):
        return torch.full((len(anchors),), -1, dtype=torch.int64, device=anchors.device)
    in_blocks = anchors.device.type == "cpu" and len(anchors) * len(gt_boxes) > FEW_PAIRS
    find = _best_by_blocks if in_blocks else _best_by_pieces
    best, match, favoured = find(anchors.detach(), gt_boxes.detach())
    chosen = torch.where(best < negative, -1, torch.where(best < positive, -2, match))
    return torch.where(favoured, match, chosen) if low_quality else chosen


def _best_by_blocks(anchors: Tensor, gt_boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Largest IoU of each anchor, the first ground truth that has it, and whether it is the best of a ground truth."""
    filled = torch.cat([anchors, anchors[-1:].expand(-len(anchors) % BLOCK, 4)])  # repeats change no maximum
    columns = filled.t().contiguous()
    corners, areas = columns.view(4, -1, BLOCK), box_area(columns.t()).view(-1, BLOCK)
    gt_corners, gt_areas = gt_boxes.t()[:, :, None, None], box_area(gt_boxes)[:, None, None]
    best = torch.zeros_like(areas, dtype=torch.promote_types(areas.dtype, gt_areas.dtype))
    match = torch.zeros_like(best, dtype=torch.int64)
    favoured = torch.zeros_like(best, dtype=torch.uint8)  # not bool, of which the maximum takes ten times as long
    highest = []
    for row, blocks in enumerate(_touched(corners, areas, gt_corners[:, :, :, 0], gt_areas[:, :, 0])):
        iou = _iou(corners.index_select(1, blocks), areas.index_select(0, blocks), gt_corners[:, row], gt_areas[row])
        top = iou.amax() if len(blocks) else iou.new_zeros(())
        highest.append(top)
        is_top = (iou == top).view(torch.uint8)
        favoured.index_copy_(0, blocks, favoured.index_select(0, blocks).maximum(is_top))
        before = best.index_select(0, blocks)
        match.index_copy_(0, blocks, match.index_select(0, blocks).masked_fill_(iou > before, row))  # first of equals
        best.index_copy_(0, blocks, before.maximum(iou))
    nowhere = (torch.stack(highest) == 0).any()  # what touches no anchor has all of them for its best: IoU 0
    count = len(anchors)
    return best.flatten()[:count], match.flatten()[:count], favoured.flatten()[:count].bool() | nowhere


def _touched(corners: Tensor, areas: Tensor, gt_corners: Tensor, gt_areas: Tensor) -> list[Tensor]:
    """Blocks where a ground truth can have an IoU other than 0, for each ground truth.

    Args:
        corners: Of anchors in blocks [4, N, 128].
        areas: Of anchors in blocks [N, 128].
        gt_corners: Of ground truths [4, G, 1].
        gt_areas: Of ground truths [G, 1].
    """
    apart = (gt_corners[2:] <= corners[:2].amin(2)[:, None]) | (gt_corners[:2] >= corners[2:].amax(2)[:, None])
    # a box without a proper area has a union that may be 0 or no number, wherever it is
    odd = ~(_is_proper(gt_areas) & _is_proper(areas).all(1))
    touched = ~(apart[0] | apart[1]) | odd
    return list(touched.nonzero()[:, 1].split(touched.sum(1).tolist()))


def _is_proper(areas: Tensor) -> Tensor:
    return (areas > 0) & areas.isfinite()


def gt_pieces(num_anchors: int, num_gt: int) -> Iterator[slice]:
    """Slices of the ground truths such that a matrix of those and all anchors takes 16 MiB, or one row."""
    step = max(1, PAIRS_AT_ONCE // max(1, num_anchors))
    return (slice(start, start + step) for start in range(0, num_gt, step))


def _best_by_pieces(anchors: Tensor, gt_boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same for all anchors with some ground truths at a time, without a look at a number."""
    corners, areas = anchors.t().contiguous(), box_area(anchors)
    gt_corners, gt_areas = gt_boxes.t()[:, :, None], box_area(gt_boxes)[:, None]
    best = torch.zeros_like(areas, dtype=torch.promote_types(areas.dtype, gt_areas.dtype))
    match = torch.zeros_like(best, dtype=torch.int64)
    favoured = torch.zeros_like(best, dtype=torch.bool)
    for rows in gt_pieces(len(anchors), len(gt_boxes)):
        iou = _iou(corners[:, None], areas, gt_corners[:, rows], gt_areas[rows])
        favoured |= (iou == iou.amax(1, keepdim=True)).any(0)
        value, first = iou.max(0)
        match = torch.where(value > best, first + rows.start, match)  # the first of equals
        best = best.maximum(value)
    return best, match, favoured


def _iou(corners: Tensor, areas: Tensor, gt_corners: Tensor, gt_areas: Tensor) -> Tensor:
    """IoU by torchvision's operations in torchvision's order, infinite in place of NaN.

    ``Matcher`` takes NaN for the largest IoU of an anchor, and below no threshold. So is infinity, which also compares.
    NaN is never found to be the best of a ground truth, where infinity is; but such anchors are positive already.
    """
    sides = torch.minimum(corners[2:], gt_corners[2:]) - torch.maximum(corners[:2], gt_corners[:2])
    if sides.dtype.itemsize < 4:
        sides = sides.float()
    width, height = sides.clamp_(min=0)
    intersection = width.mul_(height)
    union = (gt_areas + areas).sub_(intersection)
    iou: Tensor = intersection.div_(union).nan_to_num_(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    return iou
