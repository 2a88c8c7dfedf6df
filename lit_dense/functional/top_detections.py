"""Selection of the best detections: top scores as in RetinaNet (arXiv:1708.02002), and NMS within each class."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms, nms

BLOCK = 64
"""Block size of the two-level top-k: each block is represented by its maximum."""
MIN_PARALLEL = 2**15
"""Number of elements from which PyTorch splits an operation between threads."""
VECTORS = 1024
"""A multiple of the vector length of any CPU."""


def top_scores(logits: Tensor, score_thresh: float, number: int) -> tuple[Tensor, Tensor]:
    """Select the best scores of a pyramid level, as torchvision's RetinaNet does (https://arxiv.org/abs/1708.02002).

    Scores and their order are bit-identical to torchvision's. Blocks whose largest logit cannot be among the best are
    skipped, and scores are computed only for the rest. If scores are equal, the selection depends on the sorting
    algorithm. In that case, in half precision, where ties are frequent, and on other devices than a CPU, where
    synchronisations would cost more than the skipped blocks, it sorts exactly what torchvision sorts.

    Args:
        logits: Logits of all anchors and classes of a level [N, C].
        score_thresh: Only larger scores are selected.
        number: Largest number of scores to select.

    Returns:
        Scores, best first [n], and their positions in the flattened logits [n].

    Example:
        >>> scores, positions = top_scores(torch.tensor([[0.0, -3.0], [2.0, 1.0]]), 0.1, 2)
        >>> positions.tolist()
        [2, 3]
    """
    flat = logits.flatten()
    too_few = len(flat) < 2 * BLOCK * number
    if too_few or flat.dtype.itemsize < 4 or flat.device.type != "cpu" or not logits.is_contiguous():
        return _sorted_all(logits, score_thresh, number)
    whole = len(flat) // BLOCK * BLOCK
    maxima = flat.detach()[:whole].view(-1, BLOCK).amax(1)
    least = _logit_below(score_thresh)
    rows = (~(maxima <= least)).nonzero().squeeze(1)  # keeps blocks with NaN
    pruned = len(rows) > number
    if pruned:
        best = maxima[rows].topk(number).values
        largest, last = best[0].item(), best[-1].item()  # at least `number` logits are >= last
        if math.isnan(largest) or last < -80:  # scores of different logits below -80 can be equal
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
    if not pruned:  # no block was skipped
        scores, order = scores.topk(min(number, len(scores)))
        return scores, positions[order]
    scores, order = scores.topk(min(number + 1, len(scores)))
    if bool((scores[1:] == scores[:-1]).any()):
        return _sorted_all(logits, score_thresh, number)
    return scores[:number], positions[order[:number]]


def _sorted_all(logits: Tensor, score_thresh: float, number: int) -> tuple[Tensor, Tensor]:
    """Select the best scores with torchvision's operations."""
    scores = logits.sigmoid().flatten()
    positions = (scores > score_thresh).nonzero().squeeze(1)
    scores, order = scores[positions].topk(min(number, len(positions)))
    return scores, positions[order]


def _logit_below(score: float) -> float:
    """Return a lower bound of the logits whose computed score is larger than ``score``."""
    if score <= 0:
        return -math.inf
    low = min(score, 1.0) * (1 - 1e-5)  # about a hundred rounding errors of float32
    return math.log(low) - math.log1p(-low)


def _logit_of_less(logit: float) -> float:
    """Return a lower bound of the logits whose computed score can equal that of ``logit``."""
    return logit - 1e-4 if logit <= 0 else _logit_below(1 / (1 + math.exp(-logit)))


def _sigmoid_at(flat: Tensor, positions: Tensor) -> Tensor:
    """Compute ``flat.sigmoid()[positions]`` on a CPU, bit-identical, without computing all of it.

    Each thread computes the remainder of its range, which does not fill a vector, with other instructions.
    The last bit can differ.
    """
    padded = F.pad(flat[positions], (0, -len(positions) % VECTORS))
    scores = torch.cat([chunk.sigmoid() for chunk in padded.split(MIN_PARALLEL // 2)])[: len(positions)]
    for start, end in _thread_ranges(len(flat)):
        remainder = slice(start + (end - start) // VECTORS * VECTORS, end)
        inside = (positions >= remainder.start) & (positions < end)
        scores[inside] = flat[remainder].sigmoid()[positions[inside] - remainder.start]
    return scores


def _thread_ranges(count: int) -> Iterator[tuple[int, int]]:
    """Return the range of elements that each PyTorch thread computes."""
    threads = 1 if count < MIN_PARALLEL else min(torch.get_num_threads(), -(-count // MIN_PARALLEL))
    size = -(-count // threads)
    return ((start, min(start + size, count)) for start in range(0, count, size))


def suppress(boxes: Tensor, scores: Tensor, labels: Tensor, iou_thresh: float, number: int) -> Tensor:
    """Apply NMS to each class (arXiv:1506.01497) and keep the best boxes, as torchvision's ``batched_nms``.

    Only better boxes suppress a box. So NMS starts with the best boxes, and uses more only if too few remain. Boxes are
    sorted by class once, whereas torchvision searches all boxes for each class.

    Args:
        boxes: Boxes in pixels, x1 y1 x2 y2 [N, 4].
        scores: Score of each box [N].
        labels: Class of each box [N].
        iou_thresh: If the IoU of two boxes of a class is larger, only the better one is kept.
        number: Largest number of boxes to keep.

    Returns:
        Indices of the kept boxes, best first [n].

    Example:
        >>> boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 11], [0, 0, 10, 10]])
        >>> suppress(boxes, torch.tensor([0.5, 0.9, 0.7]), torch.tensor([0, 0, 1]), 0.5, 100)
        tensor([1, 2])
    """
    # Here torchvision shifts the boxes of each class apart, which rounds their coordinates.
    if boxes.device.type != "cpu" or boxes.numel() <= 4000:
        return torch.as_tensor(batched_nms(boxes, scores, labels, iou_thresh))[:number]
    sorted_scores = scores.sort(descending=True).values
    num_candidates = 2 * number
    while num_candidates < len(scores):
        rows = (scores >= sorted_scores[num_candidates - 1]).nonzero().squeeze(1)  # includes all boxes of equal score
        kept = rows[_suppress_by_class(boxes[rows], scores[rows], labels[rows], iou_thresh)]
        best = scores[kept[: number + 1]]
        if bool((best[1:] == best[:-1]).any()):
            break  # the order of equal scores depends on the number of sorted boxes
        if len(kept) >= number:
            return kept[:number]
        num_candidates *= 2
    return _suppress_by_class(boxes, scores, labels, iou_thresh)[:number]


def _suppress_by_class(boxes: Tensor, scores: Tensor, labels: Tensor, iou_thresh: float) -> Tensor:
    """Return the indices of all boxes that NMS keeps, best first."""
    by_class = labels.sort(stable=True).indices
    sizes = [size for size in labels.bincount().tolist() if size]
    kept_by_class = [
        rows if len(rows) == 1 else rows[nms(own_boxes, own_scores, iou_thresh)]
        for rows, own_boxes, own_scores in zip(
            by_class.split(sizes), boxes[by_class].split(sizes), scores[by_class].split(sizes), strict=True
        )
    ]
    kept = torch.cat(kept_by_class).sort().values  # the order in which torchvision starts to sort by score
    return kept[scores[kept].sort(descending=True).indices]
