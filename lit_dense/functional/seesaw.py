"""Seesaw loss (https://arxiv.org/abs/2008.10032)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .fused.anchor_loss import Rows, per_anchor, readable
from .softmax import LARGEST_PROBABILITY
from .softplus import log1p, softplus


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

    The loss is the sum of two parts. Positives have a softmax over the classes: mitigation reduces the gradient of
    classes with fewer samples, and compensation increases that of classes which a sample is mistaken for. All anchors
    have a softmax over object and background.

    Args:
        logits: Logits of the classes, then of object and background [A, C + 2].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        counts: Number of samples of each class so far, including this batch [C].
        positives: Indices of the positive anchors [P].
        p: Exponent of the mitigation factor.
        q: Exponent of the compensation factor.
        eps: Lower bound of the ground-truth class's probability in the compensation factor.

    Returns:
        One value per anchor, 0 for ignored anchors [A].
    """
    classes = labels[positives]
    class_values = _class_loss(readable(logits[positives, :-2]), classes, counts, p, q, eps)
    objectness = per_anchor(logits, labels, _objectness)[0]
    return objectness.index_add(0, positives, class_values)


def _objectness(x: Tensor, labels: Tensor, targets: Tensor | None) -> Rows:
    """Two-class cross-entropy of object against background, for :func:`per_anchor`."""
    sign = torch.where(labels >= 0, 1.0, -1.0).to(x.dtype)  # 1 object, -1 background
    margin = sign * (x[:, -2] - x[:, -1])
    slope = -sign * torch.sigmoid(-margin)
    slopes = torch.zeros_like(x)
    slopes[:, -2], slopes[:, -1] = slope.detach(), -slope.detach()
    return Rows(softplus(-margin), slopes)


def _class_loss(logits: Tensor, classes: Tensor, counts: Tensor, p: float, q: float, eps: float) -> Tensor:
    """Compute the cross-entropy of positives over the classes, with the log of the seesaw factor added [P]."""
    column = classes.unsqueeze(1)
    samples = counts.to(logits.dtype).clamp(min=1)
    mitigation = (samples.unsqueeze(0) / samples[classes].unsqueeze(1)).clamp(max=1).log() * p
    log_p = F.log_softmax(logits.detach(), dim=1)
    own = log_p.gather(1, column)
    floor = torch.full_like(own, eps).log()
    compensation = (log_p - torch.maximum(own, floor)).clamp(min=0) * q  # log(max(ratio, 1)) * q
    log_factors = (mitigation + compensation).scatter(1, column, 0.0)
    return F.cross_entropy(logits + log_factors, classes, reduction="none")


def seesaw_score_logits(logits: Tensor) -> Tensor:
    """Convert logits to those whose sigmoid is class times object probability [..., C + 2] -> [..., C]."""
    object_log_p = -softplus(logits[..., -1:] - logits[..., -2:-1])
    log_p = F.log_softmax(logits[..., :-2], dim=-1) + object_log_p
    return log_p - log1p(-log_p.exp().clamp(max=LARGEST_PROBABILITY))
