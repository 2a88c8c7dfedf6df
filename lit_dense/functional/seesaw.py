"""Seesaw loss (https://arxiv.org/abs/2008.10032)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .fused.anchor_loss import Rows, per_anchor, readable
from .softmax import LARGEST_PROBABILITY


def seesaw_loss(
    logits: Tensor,
    labels: Tensor,
    counts: Tensor,
    positives: Tensor,
    p: float = 0.8,
    q: float = 2.0,
    eps: float = 0.01,
) -> Tensor:
    """Seesaw loss (https://arxiv.org/abs/2008.10032) of each anchor, with objectness.

    A softmax over the classes, of positives alone, in which classes with fewer samples are pushed down less and
    classes that were mistaken for the true one more; and a softmax of two, object or background, of all anchors.

    Args:
        logits: Scores [A, C + 2]: the classes, then object and background.
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        counts: Samples of each class so far, this batch included [C].
        positives: Indices of the anchors with a class [P].
        p: Strength of the mitigation by counts.
        q: Strength of the compensation of mistakes.
        eps: Smallest probability of the true class in that compensation.

    Returns:
        One value per anchor, 0 where it is ignored [A].
    """
    classes = labels[positives]
    ranked = _ranking(readable(logits[positives, :-2]), classes, counts, p, q, eps)
    objectness = per_anchor(logits, labels, _objectness)[0]
    return objectness.index_add(0, positives, ranked)


def _objectness(x: Tensor, labels: Tensor, targets: Tensor | None) -> Rows:
    side = torch.where(labels >= 0, 1.0, -1.0).to(x.dtype)  # object, or background
    margin = side * (x[:, -2] - x[:, -1])
    slope = -side * torch.sigmoid(-margin)
    slopes = torch.zeros_like(x)
    slopes[:, -2], slopes[:, -1] = slope.detach(), -slope.detach()
    return Rows(F.softplus(-margin), slopes)


def _ranking(logits: Tensor, classes: Tensor, counts: Tensor, p: float, q: float, eps: float) -> Tensor:
    """Cross-entropy of positives over the classes, each logit moved by the log of its seesaw factor [P]."""
    column = classes.unsqueeze(1)
    samples = counts.to(logits.dtype).clamp(min=1)
    mitigation = (samples.unsqueeze(0) / samples[classes].unsqueeze(1)).clamp(max=1).log() * p
    log_p = F.log_softmax(logits.detach(), dim=1)
    own = log_p.gather(1, column)
    floor = torch.full_like(own, eps).log()
    compensation = (log_p - torch.maximum(own, floor)).clamp(min=0) * q  # log of the ratio, where that is over 1
    moved = (mitigation + compensation).scatter(1, column, 0.0)
    return F.cross_entropy(logits + moved, classes, reduction="none")


def seesaw_score_logits(logits: Tensor) -> Tensor:
    """Logits whose sigmoid is probability of the class times that of an object [..., C + 2] -> [..., C]."""
    object_log_p = F.logsigmoid(logits[..., -2:-1] - logits[..., -1:])
    log_p = F.log_softmax(logits[..., :-2], dim=-1) + object_log_p
    return log_p - torch.log1p(-log_p.exp().clamp(max=LARGEST_PROBABILITY))
