"""Generalized cross-entropy, GCE (https://arxiv.org/abs/1805.07836)."""

from __future__ import annotations  # torch 2.4 cannot compile nested functions annotated with X | None

import torch
from torch import Tensor

from .fused.sigmoid_terms import SigmoidTerms, ValueAndSlope, sum_over_classes
from .softplus import softplus


def gce_terms(q: float = 0.7) -> SigmoidTerms:
    """Return the terms of GCE; a soft target y gives ``y * positive + (1 - y) * negative``."""

    def negative(x: Tensor, labels: Tensor) -> ValueAndSlope:
        entropy, p = softplus(x), torch.sigmoid(x)
        if q == 0:
            return entropy, p
        falling = torch.expm1(-q * entropy)  # (1 - p) ** q - 1, exact where it is small
        return falling * (-1 / q), (falling + 1) * p

    def positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> ValueAndSlope:
        value, slope = negative(-x, labels)
        if targets is None:
            return value, -slope
        neg_value, neg_slope = negative(x, labels)
        return targets * value + (1 - targets) * neg_value, (1 - targets) * neg_slope - targets * slope

    return SigmoidTerms(negative, positive)


def gce_loss(logits: Tensor, labels: Tensor, q: float = 0.7, soft_targets: Tensor | None = None) -> Tensor:
    """Generalized cross-entropy ``(1 - p_t ** q) / q`` (https://arxiv.org/abs/1805.07836), summed over classes.

    The gradient is ``p_t ** q`` times that of cross-entropy, so logits that contradict their label learn little.

    Args:
        logits: Class logits [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        q: In [0, 1]: 0 gives cross-entropy, 1 the absolute error of the probability.
        soft_targets: Target of the logit of each anchor's class, in [0, 1]; None means 1 [A].

    Returns:
        One value per anchor, 0 for ignored anchors [A].

    Example:
        >>> gce_loss(torch.tensor([[2.0], [-2.0]]), torch.tensor([0, 0]))
        tensor([0.1215, 1.1062])
    """
    return sum_over_classes(logits, labels, gce_terms(q), soft_targets)
