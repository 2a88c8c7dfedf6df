"""Prime sample attention, PISA (https://arxiv.org/abs/1904.04821): ranks, weights, and the CARL loss."""

import torch
from torch import Tensor
from torchvision.ops import box_iou, nms


def hierarchical_local_rank(labels: Tensor, groups: Tensor, quality: Tensor) -> Tensor:
    """Rank samples of a class by quality, the best of every group first (https://arxiv.org/abs/1904.04821).

    Args:
        labels: Class of each sample, integers [N].
        groups: What a sample is one of several for, such as its ground truth; integers, unique in the batch [N].
        quality: The more the better [N].

    Returns:
        Rank in its class, 0 the best; equal qualities rank in the order of samples [N].

    Example:
        >>> labels, groups = torch.tensor([0, 0, 0, 0, 0, 1]), torch.tensor([0, 0, 0, 1, 1, 2])
        >>> hierarchical_local_rank(labels, groups, torch.tensor([0.9, 0.7, 0.6, 0.8, 0.5, 0.95]))
        tensor([0, 2, 4, 1, 3, 0])
    """
    best_first = quality.argsort(descending=True, stable=True)
    local = _place_within(groups, best_first)
    return _place_within(labels, best_first[local[best_first].argsort(stable=True)])


def _place_within(keys: Tensor, order: Tensor) -> Tensor:
    """How many samples of the same key come before each one in an order [N]."""
    order = order[keys[order].argsort(stable=True)]
    sorted_keys = keys[order].contiguous()
    place = torch.arange(len(keys), device=keys.device) - torch.searchsorted(sorted_keys, sorted_keys)
    return torch.empty_like(place).scatter_(0, order, place)


def rank_weights(ranks: Tensor, number: Tensor, gamma: float, beta: float) -> Tensor:
    """Weights that fall with the rank: ``((1 - beta) * (number - rank) / number + beta) ** gamma`` [N].

    Args:
        ranks: From 0 [N].
        number: How many ranks there are, [] or [N].
        gamma: How steeply weights fall, at least 0.
        beta: Weight of the last before the power, in [0, 1].

    Example:
        >>> rank_weights(torch.tensor([0, 2, 4, 1, 3, 0]), torch.tensor(5), gamma=2.0, beta=0.0)
        tensor([1.0000, 0.3600, 0.0400, 0.6400, 0.1600, 1.0000])
    """
    return ((1 - beta) * (number - ranks) / number + beta) ** gamma


def match_by_nms(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    """Which of the boxes that survive non-maximum suppression each box belongs to, itself included [N].

    Args:
        boxes: x1 y1 x2 y2 [N, 4].
        scores: [N].
        iou: From which a box is suppressed.
    """
    if len(boxes) == 0:
        return scores.new_zeros(0, dtype=torch.long)
    kept = nms(boxes, scores, iou)  # best first: a box is suppressed by the first that overlaps it
    overlaps = torch.as_tensor(box_iou(boxes[kept], boxes) > iou)
    return overlaps.to(torch.uint8).argmax(0)


def carl_weights(probabilities: Tensor, total: Tensor, number: Tensor, gamma: float, beta: float) -> Tensor:
    """Weights of the boxes of positives by the score of their class, with mean 1 and gradient to the scores [P].

    Args:
        probabilities: Score of each positive's own class, with its graph [P].
        total: Sum of :func:`carl_values` over the whole batch, with its graph [].
        number: Positives of the whole batch [].
        gamma: How steeply weights rise with the score.
        beta: Weight of a score of 0 before the power, in [0, 1].
    """
    return carl_values(probabilities, gamma, beta) * number / total.clamp(min=torch.finfo(total.dtype).tiny)


def carl_values(probabilities: Tensor, gamma: float, beta: float) -> Tensor:
    """``((1 - beta) * p + beta) ** gamma`` [P]."""
    return ((1 - beta) * probabilities + beta) ** gamma
