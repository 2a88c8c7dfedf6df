"""Focal loss (https://arxiv.org/abs/1708.02002)."""

from __future__ import annotations  # torch 2.4 cannot compile nested functions annotated with X | None

import torch
from torch import Tensor

from .fused.sigmoid_terms import SigmoidTerms, ValueAndSlope, sum_over_classes
from .softplus import power, softplus


def focused_cost(x: Tensor, gamma: float, weight: float | Tensor) -> ValueAndSlope:
    """Focal loss of negative logits, ``weight * p ** gamma * -log(1 - p)``, and its derivative.

    For positive logits, pass ``-x`` and negate the derivative.

    Args:
        x: Logits of any shape.
        gamma: Focusing exponent, at least 0.
        weight: Factor of both results, or one of each logit.
    """
    p, entropy = torch.sigmoid(x), softplus(x)
    # For gamma < 1 the derivative of p ** gamma is infinite at p = 0, so compute exp(gamma * log p), where
    # log p = x - softplus(x).
    factor = weight * torch.exp(gamma * (x - entropy)) if 0 < gamma < 1 else power(p, gamma).mul_(weight)
    slope = torch.addcmul(p, 1 - p, entropy, value=gamma).mul_(factor)
    return entropy.mul_(factor), slope


def of_labels(factor: float | Tensor, labels: Tensor) -> float | Tensor:
    """Return the factor of each label's class: a number as it is, or the entries of a tensor [C] -> [n].

    Args:
        factor: One factor, or one for each class [C].
        labels: Class of each row; the entry of negative labels is not used [n].
    """
    return factor[labels.clamp(min=0)] if isinstance(factor, Tensor) else factor


def focal_terms(alpha: float = 0.25, gamma: float = 2.0, pos_weight: float | Tensor = 1.0) -> SigmoidTerms:
    """Return the terms of focal loss; a soft target y gives ``y * positive + (1 - y) * negative``.

    With soft targets it is the soft focal loss of https://arxiv.org/abs/1912.05086. ``pos_weight`` is an additional
    factor of positive terms, or one for each class [C].
    """

    def negative(x: Tensor, labels: Tensor) -> ValueAndSlope:
        return focused_cost(x, gamma, 1 - alpha)

    def positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> ValueAndSlope:
        value, slope = focused_cost(-x, gamma, alpha * of_labels(pos_weight, labels))
        if targets is None:
            return value, -slope
        neg_value, neg_slope = focused_cost(x, gamma, 1 - alpha)
        return targets * value + (1 - targets) * neg_value, (1 - targets) * neg_slope - targets * slope

    return SigmoidTerms(negative, positive)


def focal_loss(
    logits: Tensor,
    labels: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    soft_targets: Tensor | None = None,
    pos_weight: float | Tensor = 1.0,
) -> Tensor:
    """Focal loss (https://arxiv.org/abs/1708.02002) of each anchor, summed over classes.

    It is cross-entropy times ``(1 - p_t) ** gamma``, which reduces the loss of well-classified logits. Gradients flow
    through that factor, as in the paper.

    Args:
        logits: Class logits [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        alpha: Weight of positive terms, in [0, 1]; negative terms have weight ``1 - alpha``.
        gamma: Focusing exponent, at least 0; 0 gives cross-entropy.
        soft_targets: Target of the logit of each anchor's class, in [0, 1]; None means 1 [A].
        pos_weight: Additional factor of positive terms, at least 0, or one for each class [C].

    Returns:
        One value per anchor, 0 for ignored anchors [A].

    Example:
        >>> focal_loss(torch.tensor([[0.0, 2.0], [0.0, -2.0]]), torch.tensor([0, -2]))
        tensor([1.2809, 0.0000])
    """
    return sum_over_classes(logits, labels, focal_terms(alpha, gamma, pos_weight), soft_targets)
