"""Prime sample attention, PISA (https://arxiv.org/abs/1904.04821): ranks, weights, and the CARL loss."""

import torch
from torch import Tensor
from torchvision.ops import box_iou, nms


def hierarchical_local_rank(labels: Tensor, groups: Tensor, quality: Tensor) -> Tensor:
    """Rank the samples of each class by quality, the best of every group first (https://arxiv.org/abs/1904.04821).

    Args:
        labels: Class of each sample, integers [N].
        groups: Group of each sample, such as the index of its ground truth, integers unique in the batch [N].
        quality: Quality of each sample; larger is better [N].

    Returns:
        Rank of each sample in its class, 0 is the best [N]. Samples of equal quality keep their order.

    Example:
        >>> labels, groups = torch.tensor([0, 0, 0, 0, 0, 1]), torch.tensor([0, 0, 0, 1, 1, 2])
        >>> hierarchical_local_rank(labels, groups, torch.tensor([0.9, 0.7, 0.6, 0.8, 0.5, 0.95]))
        tensor([0, 2, 4, 1, 3, 0])
    """
    best_first = quality.argsort(descending=True, stable=True)
    local = _rank_within(groups, best_first)
    return _rank_within(labels, best_first[local[best_first].argsort(stable=True)])


def _rank_within(keys: Tensor, order: Tensor) -> Tensor:
    """Count for each sample the samples with the same key before it in ``order`` [N]."""
    order = order[keys[order].argsort(stable=True)]
    sorted_keys = keys[order].contiguous()
    rank = torch.arange(len(keys), device=keys.device) - torch.searchsorted(sorted_keys, sorted_keys)
    return torch.empty_like(rank).scatter_(0, order, rank)


def rank_weights(ranks: Tensor, number: Tensor, gamma: float, beta: float) -> Tensor:
    """Compute weights that decrease with the rank: ``((1 - beta) * (number - rank) / number + beta) ** gamma`` [N].

    Args:
        ranks: Rank of each sample, from 0 [N].
        number: Number of ranks [] or [N].
        gamma: Exponent, at least 0; larger values give steeper weights.
        beta: Lower bound of the base of the power, in [0, 1].

    Example:
        >>> rank_weights(torch.tensor([0, 2, 4, 1, 3, 0]), torch.tensor(5), gamma=2.0, beta=0.0)
        tensor([1.0000, 0.3600, 0.0400, 0.6400, 0.1600, 1.0000])
    """
    return ((1 - beta) * (number - ranks) / number + beta) ** gamma


def match_by_nms(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    """Assign each box to the box that suppresses it in NMS, or to itself if it is kept.

    Args:
        boxes: Boxes, x1 y1 x2 y2 [N, 4].
        scores: Score of each box [N].
        iou: IoU above which a box is suppressed.

    Returns:
        Number of each box's group, 0 for the kept box with the best score [N].
    """
    if len(boxes) == 0:
        return scores.new_zeros(0, dtype=torch.long)
    kept = nms(boxes, scores, iou)  # best first: the first kept box that overlaps a box suppresses it
    overlaps = torch.as_tensor(box_iou(boxes[kept], boxes) > iou)
    return overlaps.to(torch.uint8).argmax(0)


def carl_weights(probabilities: Tensor, total: Tensor, number: Tensor, gamma: float, beta: float) -> Tensor:
    """Compute the CARL weights of positive boxes from their scores, with mean 1 and a gradient to the scores [P].

    Args:
        probabilities: Predicted score of each positive's class, with its graph [P].
        total: Sum of :func:`carl_values` over the whole batch, with its graph [].
        number: Number of positives of the whole batch [].
        gamma: Exponent; larger values give steeper weights.
        beta: Base of the power for a score of 0, in [0, 1].
    """
    return carl_values(probabilities, gamma, beta) * number / total.clamp(min=torch.finfo(total.dtype).tiny)


def carl_values(probabilities: Tensor, gamma: float, beta: float) -> Tensor:
    """Compute ``((1 - beta) * p + beta) ** gamma``, the unnormalised CARL weights [P]."""
    return ((1 - beta) * probabilities + beta) ** gamma
