"""Quality focal loss, QFL (https://arxiv.org/abs/2006.04388)."""

from __future__ import annotations  # torch 2.4 cannot compile nested functions annotated with X | None

import torch
from torch import Tensor

from .focal import focused_cost
from .fused.sigmoid_terms import SigmoidTerms, ValueAndSlope, sum_over_classes
from .softplus import softplus


def quality_focal_terms(beta: float = 2.0) -> SigmoidTerms:
    """Return the terms of quality focal loss: soft-target cross-entropy times ``|p - target| ** beta``."""

    def negative(x: Tensor, labels: Tensor) -> ValueAndSlope:
        return focused_cost(x, beta, 1.0)

    def positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> ValueAndSlope:
        p, y = torch.sigmoid(x), 1.0 if targets is None else targets
        entropy = y * softplus(-x) + (1 - y) * softplus(x)
        difference = p - y
        distance = difference.abs()
        factor_slope = beta * distance ** (beta - 1) * difference.sign() if beta > 0 else torch.zeros_like(p)
        return distance**beta * entropy, distance**beta * difference + factor_slope * p * torch.sigmoid(-x) * entropy

    return SigmoidTerms(negative, positive)


def quality_focal_loss(logits: Tensor, labels: Tensor, beta: float = 2.0, soft_targets: Tensor | None = None) -> Tensor:
    """Quality focal loss (https://arxiv.org/abs/2006.04388) of each anchor, summed over classes.

    Args:
        logits: Class logits [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        beta: Focusing exponent, 0 or at least 1: larger values reduce the loss of scores near their target.
        soft_targets: Target of the logit of each anchor's class, in [0, 1], such as the IoU of its predicted box [A].

    Returns:
        One value per anchor, 0 for ignored anchors [A].

    Example:
        >>> quality_focal_loss(torch.tensor([[0.4055]]), torch.tensor([0]), soft_targets=torch.tensor([0.8]))
        tensor([0.0237])
    """
    return sum_over_classes(logits, labels, quality_focal_terms(beta), soft_targets)
