"""Which of a detector's outputs are detections (https://arxiv.org/abs/1708.02002), chosen as torchvision chooses."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms, nms

BLOCK = 64
"""Logits whose largest one stands for all: few enough to look through, many enough to make their maxima few."""
LARGEST_PIECE = 2**15
"""Elements from which PyTorch splits an operation between threads."""
VECTORS = 1024
"""A multiple of what any processor computes at once."""


def top_scores(logits: Tensor, score_thresh: float, number: int) -> tuple[Tensor, Tensor]:
    """The best scores of a pyramid level (https://arxiv.org/abs/1708.02002): what torchvision's RetinaNet keeps of it.

    Scores and their order are the same to the last bit. Blocks whose largest logit cannot be among the best are left
    out, and scores are computed of the rest alone. Where scores are equal, so that what is kept depends on how a sort
    proceeds, and in half precision, where they often are, it sorts what torchvision sorts.

    Args:
        logits: Of all anchors and classes of a level [N, C].
        score_thresh: A score must be larger than that.
        number: Most scores to keep.

    Returns:
        Scores, best first, and where they stand in the flattened logits, each [n].

    Example:
        >>> scores, positions = top_scores(torch.tensor([[0.0, -3.0], [2.0, 1.0]]), 0.1, 2)
        >>> positions.tolist()
        [2, 3]
    """
    flat = logits.flatten()
    if len(flat) < 2 * BLOCK * number or flat.dtype.itemsize < 4 or not logits.is_contiguous():
        return _sorted_all(logits, score_thresh, number)
    whole = len(flat) // BLOCK * BLOCK
    maxima = flat.detach()[:whole].view(-1, BLOCK).amax(1)
    least = _logit_below(score_thresh)
    rows = (~(maxima <= least)).nonzero().squeeze(1)  # NaN is not below it either
    pruned = len(rows) > number
    if pruned:
        best = maxima[rows].topk(number).values
        largest, last = best[0].item(), best[-1].item()  # at least so many logits are not below the last
        if math.isnan(largest) or last < -80:  # down there, scores of different logits are equal
            return _sorted_all(logits, score_thresh, number)
        least = max(least, _logit_of_less(last))
        rows = rows[maxima[rows] > least]
        if len(rows) > 4 * number:
            return _sorted_all(logits, score_thresh, number)
    inside = (rows * BLOCK).unsqueeze(1) + torch.arange(BLOCK, device=rows.device)
    positions = torch.cat([inside.flatten(), torch.arange(whole, len(flat), device=rows.device)])
    positions = positions[flat[positions] > least]
    scores = _sigmoid_at(flat, positions)
    above = scores > score_thresh
    scores, positions = scores[above], positions[above]
    if not pruned:  # these are all
        scores, order = scores.topk(min(number, len(scores)))
        return scores, positions[order]
    scores, order = scores.topk(min(number + 1, len(scores)))
    if bool((scores[1:] == scores[:-1]).any()):
        return _sorted_all(logits, score_thresh, number)
    return scores[:number], positions[order[:number]]


def _sorted_all(logits: Tensor, score_thresh: float, number: int) -> tuple[Tensor, Tensor]:
    scores = logits.sigmoid().flatten()
    positions = (scores > score_thresh).nonzero().squeeze(1)
    scores, order = scores[positions].topk(min(number, len(positions)))
    return scores, positions[order]


def _logit_below(score: float) -> float:
    """A logit below all whose computed score is larger than that."""
    if score <= 0:
        return -math.inf
    low = min(score, 1.0) * (1 - 1e-5)  # a hundred roundings of float32
    return math.log(low) - math.log1p(-low)


def _logit_of_less(logit: float) -> float:
    """A logit below all whose computed score may equal that of the logit."""
    return logit - 1e-4 if logit <= 0 else _logit_below(1 / (1 + math.exp(-logit)))


def _sigmoid_at(flat: Tensor, positions: Tensor) -> Tensor:
    """Some elements of ``flat.sigmoid()``, to the last bit.

    A processor computes what is left over at the end of each thread's share in another way than the rest, and the last
    bit may differ.
    """
    if flat.device.type != "cpu":
        return flat[positions].sigmoid()
    filled = F.pad(flat[positions], (0, -len(positions) % VECTORS))
    scores = torch.cat([piece.sigmoid() for piece in filled.split(LARGEST_PIECE // 2)])[: len(positions)]
    for start, end in _shares(len(flat)):
        left_over = slice(start + (end - start) // VECTORS * VECTORS, end)
        there = (positions >= left_over.start) & (positions < end)
        scores[there] = flat[left_over].sigmoid()[positions[there] - left_over.start]
    return scores


def _shares(count: int) -> Iterator[tuple[int, int]]:
    """Which elements each thread computes."""
    threads = 1 if count < LARGEST_PIECE else min(torch.get_num_threads(), -(-count // LARGEST_PIECE))
    share = -(-count // threads)
    return ((start, min(start + share, count)) for start in range(0, count, share))


def suppress(boxes: Tensor, scores: Tensor, labels: Tensor, iou_thresh: float, number: int) -> Tensor:
    """Suppression in each class (https://arxiv.org/abs/1506.01497): the best that torchvision's ``batched_nms`` keeps.

    A box is suppressed by better ones alone, so worse ones are looked at only if the better leave too few. Boxes are
    sorted by class once, where torchvision looks through all of them for each class.

    Args:
        boxes: Boxes in pixels, x1 y1 x2 y2 [N, 4].
        scores: Their scores [N].
        labels: Their classes [N].
        iou_thresh: IoU above which of two boxes of a class only the better stays.
        number: Most boxes to keep.

    Returns:
        Indices of the boxes that stay, best first [n].

    Example:
        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 11], [0, 0, 10, 10]])
        >>> suppress(boxes, torch.tensor([0.5, 0.9, 0.7]), torch.tensor([0, 0, 1]), 0.5, 100)
        tensor([1, 2])
    """
    if boxes.device.type != "cpu" or boxes.numel() <= 4000:  # where torchvision moves classes apart, which rounds boxes
        return torch.as_tensor(batched_nms(boxes, scores, labels, iou_thresh))[:number]
    sorted_scores = scores.sort(descending=True).values
    tried = 2 * number
    while tried < len(scores):
        rows = (scores >= sorted_scores[tried - 1]).nonzero().squeeze(1)  # all of a score, or none
        kept = rows[_suppress_by_class(boxes[rows], scores[rows], labels[rows], iou_thresh)]
        best = scores[kept[: number + 1]]
        if bool((best[1:] == best[:-1]).any()):
            break  # the order of equal scores depends on how many are sorted
        if len(kept) >= number:
            return kept[:number]
        tried *= 2
    return _suppress_by_class(boxes, scores, labels, iou_thresh)[:number]


def _suppress_by_class(boxes: Tensor, scores: Tensor, labels: Tensor, iou_thresh: float) -> Tensor:
    """All that stay, best first."""
    by_class = labels.sort(stable=True).indices
    sizes = [size for size in labels.bincount().tolist() if size]
    stays = [
        rows if len(rows) == 1 else rows[nms(own_boxes, own_scores, iou_thresh)]
        for rows, own_boxes, own_scores in zip(
            by_class.split(sizes), boxes[by_class].split(sizes), scores[by_class].split(sizes), strict=True
        )
    ]
    kept = torch.cat(stays).sort().values  # torchvision sorts by score from this order
    return kept[scores[kept].sort(descending=True).indices]
