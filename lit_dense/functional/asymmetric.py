"""Asymmetric loss, ASL (https://arxiv.org/abs/2009.14119)."""

from __future__ import annotations  # torch 2.4 cannot compile nested functions annotated with X | None

import torch
from torch import Tensor

from .fused.sigmoid_terms import SigmoidTerms, ValueAndSlope, sum_over_classes
from .softplus import softplus


def asymmetric_terms(
    gamma_pos: float = 1.0, gamma_neg: float = 4.0, margin: float = 0.05, detach_weight: bool = False
) -> SigmoidTerms:
    """Return the terms of asymmetric loss: a focal factor for each, and a margin for negative probabilities."""

    def negative(x: Tensor, labels: Tensor) -> ValueAndSlope:
        p = torch.sigmoid(x)
        q = 1 - p
        shifted = (p - margin).clamp(min=0)
        # d(weight) / d(shifted) = gamma_neg * power. The weight reuses the power, because computing powers is slow.
        power = shifted ** (gamma_neg - 1) if gamma_neg > 0 else torch.zeros_like(p)
        weight = power * shifted if gamma_neg > 0 else (shifted > 0).to(p.dtype)
        # log(1 - p) is inaccurate where 1 - p is small. A margin bounds the error; without one use softplus.
        entropy = -(q + margin).clamp(max=1).log() if margin > 0 else softplus(x)
        entropy_slope = weight * q / (q + margin) if margin > 0 else weight
        if detach_weight:
            return weight.detach() * entropy, p * entropy_slope
        return weight * entropy, p * torch.addcmul(entropy_slope, q, power * entropy, value=gamma_neg)

    def positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> ValueAndSlope:
        p, q, entropy = torch.sigmoid(x), torch.sigmoid(-x), softplus(-x)
        weight = q**gamma_pos
        slope = -weight * q
        if not detach_weight:
            slope = slope - gamma_pos * weight * p * entropy
        return (weight.detach() if detach_weight else weight) * entropy, slope

    return SigmoidTerms(negative, positive)


def asymmetric_loss(
    logits: Tensor,
    labels: Tensor,
    gamma_pos: float = 1.0,
    gamma_neg: float = 4.0,
    margin: float = 0.05,
    detach_weight: bool = False,
) -> Tensor:
    """Asymmetric loss (https://arxiv.org/abs/2009.14119) of each anchor, summed over classes.

    Args:
        logits: Class logits [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        gamma_pos: Focusing exponent of positive terms, at least 0.
        gamma_neg: Focusing exponent of negative terms, 0 or at least 1.
        margin: Probability below which the loss of a negative term is 0, in [0, 1).
        detach_weight: Whether to detach the focusing factors, the default of the authors' code.

    Returns:
        One value per anchor, 0 for ignored anchors [A].

    Example:
        >>> asymmetric_loss(torch.tensor([[0.0, -3.0]]), torch.tensor([0]))
        tensor([0.3466])
    """
    return sum_over_classes(logits, labels, asymmetric_terms(gamma_pos, gamma_neg, margin, detach_weight))
