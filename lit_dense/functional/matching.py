"""Matching of anchors and ground-truth boxes by IoU thresholds (https://arxiv.org/abs/1506.01497), like torchvision."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torchvision.ops import box_area

from .precision import float32_or_wider

BLOCK = 128
"""Anchors per block on the CPU. A block covers neighbouring grid cells; a box overlaps only a few blocks."""
FEW_PAIRS = 2**17
"""Up to this number of pairs, computing all IoUs is faster than selecting blocks."""
PAIRS_AT_ONCE = 2**22
"""Pairs per chunk: 16 MiB in float32; six such arrays exist at a time."""
PAIRS_ON_DEVICE = 2**24
"""The same when boxes of a device are matched by IoU: small chunks leave a GPU idle."""


def match_by_iou(
    anchors: Tensor, gt_boxes: Tensor, positive: float = 0.5, negative: float = 0.4, low_quality: bool = True
) -> Tensor:
    """Match anchors and ground-truth boxes by IoU thresholds, with less memory than torchvision's ``Matcher``.

    The result is bit-identical to torchvision's ``box_iou`` and ``Matcher`` (https://arxiv.org/abs/1506.01497),
    including ties and degenerate, inverted, infinite and NaN boxes. The full IoU matrix is not built. The CPU processes
    one ground-truth box at a time, with the blocks of anchors that it can overlap. Other devices process all anchors
    with a chunk of the ground-truth boxes at a time, without device synchronisation.

    Args:
        anchors: Boxes in pixels, x1 y1 x2 y2 [K, 4]. Any boxes are accepted; it is fastest if neighbouring rows are
            neighbours in the image.
        gt_boxes: Ground-truth boxes, x1 y1 x2 y2 in pixels [G, 4].
        positive: Anchors with at least this IoU are positive.
        negative: Anchors with a smaller IoU are background; those in between are ignored.
        low_quality: Whether the best anchors of a ground-truth box are positive even below the threshold.

    Returns:
        Index of the ground-truth box of each anchor; -1 background, -2 ignored [K]. Without ground-truth boxes all
        anchors are background.

    Example:
        >>> anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 22], [50, 50, 60, 60]])
        >>> match_by_iou(anchors, torch.tensor([[0.0, 0, 10, 10]]))
        tensor([ 0, -2, -1])
    """
    if not len(gt_boxes) or not len(anchors):
        return torch.full((len(anchors),), -1, dtype=torch.int64, device=anchors.device)
    best, match, is_best_of_gt = _best(anchors.detach(), gt_boxes.detach())
    by_threshold = torch.where(best < negative, -1, torch.where(best < positive, -2, match))
    return torch.where(is_best_of_gt, match, by_threshold) if low_quality else by_threshold


def largest_ious(anchors: Tensor, gt_boxes: Tensor) -> Tensor:
    """Compute the largest IoU of each anchor with a box, as in matching by IoU (https://arxiv.org/abs/1506.01497).

    Args:
        anchors: Boxes in pixels, x1 y1 x2 y2 [K, 4].
        gt_boxes: Ground-truth boxes in the same format [G, 4].

    Returns:
        Largest IoU of each anchor, in [0, 1]; 0 without ground-truth boxes [K].

    Example:
        >>> largest_ious(torch.tensor([[0.0, 0, 2, 2], [5, 5, 6, 6]]), torch.tensor([[0.0, 0, 2, 4], [1, 1, 2, 2]]))
        tensor([0.5000, 0.0000])
    """
    if not len(gt_boxes) or not len(anchors):
        return anchors.new_zeros(len(anchors))
    return _best(anchors.detach(), gt_boxes.detach())[0].clamp(0, 1)


def _best(anchors: Tensor, gt_boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the results of :func:`_best_by_blocks` or :func:`_best_by_chunks`, whichever is faster."""
    in_blocks = anchors.device.type == "cpu" and len(anchors) * len(gt_boxes) > FEW_PAIRS
    find_best = _best_by_blocks if in_blocks else _best_by_chunks
    return find_best(anchors, gt_boxes)


def _best_by_blocks(anchors: Tensor, gt_boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return each anchor's largest IoU, the first ground truth with it, and whether it is a ground truth's best anchor.

    On the CPU: one ground-truth box at a time, with the blocks of anchors that it can overlap.
    """
    padded = torch.cat([anchors, anchors[-1:].expand(-len(anchors) % BLOCK, 4)])  # repeats do not change a maximum
    columns = padded.t().contiguous()
    corners, areas = columns.view(4, -1, BLOCK), box_area(columns.t()).view(-1, BLOCK)
    gt_corners, gt_areas = gt_boxes.t()[:, :, None, None], box_area(gt_boxes)[:, None, None]
    best = torch.zeros_like(areas, dtype=torch.promote_types(areas.dtype, gt_areas.dtype))
    match = torch.zeros_like(best, dtype=torch.int64)
    is_best_of_gt = torch.zeros_like(best, dtype=torch.uint8)  # the maximum of bool is ten times slower
    highest = []
    for row, blocks in enumerate(_overlapping_blocks(corners, areas, gt_corners[:, :, :, 0], gt_areas[:, :, 0])):
        iou = _iou(corners.index_select(1, blocks), areas.index_select(0, blocks), gt_corners[:, row], gt_areas[row])
        top = iou.amax() if len(blocks) else iou.new_zeros(())
        highest.append(top)
        is_top = (iou == top).view(torch.uint8)
        is_best_of_gt.index_copy_(0, blocks, is_best_of_gt.index_select(0, blocks).maximum(is_top))
        before = best.index_select(0, blocks)
        match.index_copy_(0, blocks, match.index_select(0, blocks).masked_fill_(iou > before, row))  # first of equals
        best.index_copy_(0, blocks, before.maximum(iou))
    # If a ground truth overlaps no anchor, all anchors have its largest IoU, 0: torchvision favours them all.
    any_without_overlap = (torch.stack(highest) == 0).any()
    count = len(anchors)
    is_best_of_gt = is_best_of_gt.flatten()[:count].bool() | any_without_overlap
    return best.flatten()[:count], match.flatten()[:count], is_best_of_gt


def _overlapping_blocks(corners: Tensor, areas: Tensor, gt_corners: Tensor, gt_areas: Tensor) -> list[Tensor]:
    """Return for each ground truth the blocks in which its IoU can be other than 0.

    Args:
        corners: Corners of the anchors in blocks [4, N, 128].
        areas: Areas of the anchors in blocks [N, 128].
        gt_corners: Corners of the ground-truth boxes [4, G, 1].
        gt_areas: Areas of the ground-truth boxes [G, 1].
    """
    apart = (gt_corners[2:] <= corners[:2].amin(2)[:, None]) | (gt_corners[:2] >= corners[2:].amax(2)[:, None])
    # Without a positive finite area, the union can be 0 or NaN wherever the box is.
    degenerate = ~(_is_proper(gt_areas) & _is_proper(areas).all(1))
    overlapping = ~(apart[0] | apart[1]) | degenerate
    return list(overlapping.nonzero()[:, 1].split(overlapping.sum(1).tolist()))


def _is_proper(areas: Tensor) -> Tensor:
    return (areas > 0) & areas.isfinite()


def gt_chunks(num_anchors: int, num_gt: int, pairs: int = PAIRS_AT_ONCE) -> Iterator[slice]:
    """Split the ground truths into slices with at most ``pairs`` pairs with all anchors, or of one ground truth."""
    step = max(1, pairs // max(1, num_anchors))
    return (slice(start, start + step) for start in range(0, num_gt, step))


def _best_by_chunks(anchors: Tensor, gt_boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the same as :func:`_best_by_blocks`, in chunks of ground truths and without device synchronisation."""
    corners, areas = anchors.t().contiguous(), box_area(anchors)
    gt_corners, gt_areas = gt_boxes.t()[:, :, None], box_area(gt_boxes)[:, None]
    best = torch.zeros_like(areas, dtype=torch.promote_types(areas.dtype, gt_areas.dtype))
    match = torch.zeros_like(best, dtype=torch.int64)
    is_best_of_gt = torch.zeros_like(best, dtype=torch.bool)
    pairs = PAIRS_AT_ONCE if anchors.device.type == "cpu" else PAIRS_ON_DEVICE
    for rows in gt_chunks(len(anchors), len(gt_boxes), pairs):
        iou = _iou(corners[:, None], areas, gt_corners[:, rows], gt_areas[rows])
        is_best_of_gt |= (iou == iou.amax(1, keepdim=True)).any(0)
        value, first = iou.max(0)
        match = torch.where(value > best, first + rows.start, match)  # the first of equals
        best = best.maximum(value)
    return best, match, is_best_of_gt


def _iou(corners: Tensor, areas: Tensor, gt_corners: Tensor, gt_areas: Tensor) -> Tensor:
    """Compute the IoU with torchvision's operations in torchvision's order, with infinity in place of NaN.

    In torchvision's ``Matcher`` a NaN is the largest IoU of an anchor, and is below no threshold. The same holds for
    infinity, which also compares with itself. One difference has no effect: infinity can be the best IoU of a ground
    truth, and NaN cannot, but these anchors are positive already.
    """
    sides = float32_or_wider(torch.minimum(corners[2:], gt_corners[2:]) - torch.maximum(corners[:2], gt_corners[:2]))
    width, height = sides.clamp_(min=0)
    intersection = width.mul_(height)
    union = (gt_areas + areas).sub_(intersection)
    iou: Tensor = intersection.div_(union).nan_to_num_(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)
    return iou
