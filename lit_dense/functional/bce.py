"""Weighted binary cross-entropy (section 3.1 of https://arxiv.org/abs/1708.02002)."""

from __future__ import annotations  # torch 2.4 cannot compile nested functions annotated with X | None

import torch
from torch import Tensor

from .bootstrapping import TargetChange
from .focal import of_labels
from .fused.sigmoid_terms import SigmoidTerms, ValueAndSlope, sum_over_classes
from .softplus import softplus

LABELS_AS_THEY_ARE = TargetChange()


def bce_terms(
    alpha: float = 0.5, pos_weight: float | Tensor = 1.0, change: TargetChange = LABELS_AS_THEY_ARE
) -> SigmoidTerms:
    """Return the terms of cross-entropy; a soft target y gives ``y * positive + (1 - y) * negative``.

    Args:
        alpha: Weight of positive terms; negative terms have weight ``1 - alpha``.
        pos_weight: Additional factor of positive terms, or one for each class [C].
        change: Label smoothing and bootstrapping of the targets.
    """
    pos_factor, neg_factor = alpha * pos_weight, 1 - alpha

    def negative(x: Tensor, labels: Tensor) -> ValueAndSlope:
        return neg_factor * softplus(x), neg_factor * torch.sigmoid(x)

    def positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> ValueAndSlope:
        factor = of_labels(pos_factor, labels)
        value, slope = factor * softplus(-x), -factor * torch.sigmoid(-x)
        if targets is None:
            return value, slope
        neg_value, neg_slope = negative(x, labels)
        return targets * value + (1 - targets) * neg_value, targets * slope + (1 - targets) * neg_slope

    def changed(x: Tensor, labels: Tensor, targets: Tensor, factor: float | Tensor) -> ValueAndSlope:
        p, entropy = torch.sigmoid(x), softplus(x)
        # In YOLOv5 only objects have class targets. Smoothed targets of background would raise all scores.
        smoothing = torch.where(labels >= 0, change.smoothing, 0.0).to(x.dtype)
        smoothing = smoothing.unsqueeze(1) if x.dim() == 2 else smoothing
        t = change.mixed(targets * (1 - smoothing) + smoothing / 2, p)
        pos_part, neg_part = factor * t, neg_factor * (1 - t)
        return pos_part * (entropy - x) + neg_part * entropy, neg_part * p - pos_part * (1 - p)

    def changed_negative(x: Tensor, labels: Tensor) -> ValueAndSlope:
        return changed(x, labels, torch.zeros_like(x), pos_factor)

    def changed_positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> ValueAndSlope:
        return changed(x, labels, torch.ones_like(x) if targets is None else targets, of_labels(pos_factor, labels))

    if change.smoothing == 0 and change.form is None:
        return SigmoidTerms(negative, positive)
    return SigmoidTerms(changed_negative, changed_positive)


def bce_loss(
    logits: Tensor,
    labels: Tensor,
    alpha: float = 0.5,
    pos_weight: float | Tensor = 1.0,
    soft_targets: Tensor | None = None,
    change: TargetChange = LABELS_AS_THEY_ARE,
) -> Tensor:
    """Alpha-balanced cross-entropy (https://arxiv.org/abs/1708.02002) of each anchor, summed over classes.

    Args:
        logits: Class logits [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        alpha: Weight of positive terms, in [0, 1]; negative terms have weight ``1 - alpha``.
        pos_weight: Additional factor of positive terms, at least 0, or one for each class [C].
        soft_targets: Target of the logit of each anchor's class, in [0, 1]; None means 1 [A].
        change: Label smoothing of positive anchors, and bootstrapping of all targets (detached).

    Returns:
        One value per anchor, 0 for ignored anchors [A].

    Example:
        >>> bce_loss(torch.tensor([[0.0, 0.0], [4.0, -4.0]]), torch.tensor([1, -1]))
        tensor([0.6931, 2.0181])
    """
    return sum_over_classes(logits, labels, bce_terms(alpha, pos_weight, change), soft_targets)
