"""Asymmetric loss (https://arxiv.org/abs/2009.14119)."""

from __future__ import annotations  # torch 2.4 compiles no function that is defined in another with X | None

import torch
import torch.nn.functional as F
from torch import Tensor

from .fused.sigmoid_terms import SigmoidTerms, ValueAndSlope, sum_over_classes


def asymmetric_terms(
    gamma_pos: float = 1.0, gamma_neg: float = 4.0, margin: float = 0.05, detach_weight: bool = False
) -> SigmoidTerms:
    """The two branches of asymmetric loss: a focal factor each, and probabilities of negatives shifted down."""

    def negative(x: Tensor, labels: Tensor) -> ValueAndSlope:
        p = torch.sigmoid(x)
        q = 1 - p
        shifted = (p - margin).clamp(min=0)
        # steep is the weight's derivative over gamma_neg; a power of its own would double the cost
        steep = shifted ** (gamma_neg - 1) if gamma_neg > 0 else torch.zeros_like(p)
        weight = steep * shifted if gamma_neg > 0 else (shifted > 0).to(p.dtype)
        # 1 - p is only as exact as 1 where it is small: a margin hides that, and without one softplus is exact
        cost = -(q + margin).clamp(max=1).log() if margin > 0 else F.softplus(x)
        pull = weight * q / (q + margin) if margin > 0 else weight
        if detach_weight:
            return weight.detach() * cost, p * pull
        return weight * cost, p * torch.addcmul(pull, q, steep * cost, value=gamma_neg)

    def positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> ValueAndSlope:
        p, q, cost = torch.sigmoid(x), torch.sigmoid(-x), F.softplus(-x)
        weight = q**gamma_pos
        slope = -weight * q
        if not detach_weight:
            slope = slope - gamma_pos * weight * p * cost
        return (weight.detach() if detach_weight else weight) * cost, slope

    return SigmoidTerms(negative, positive)


def asymmetric_loss(
    logits: Tensor,
    labels: Tensor,
    gamma_pos: float = 1.0,
    gamma_neg: float = 4.0,
    margin: float = 0.05,
    detach_weight: bool = False,
) -> Tensor:
    """Asymmetric loss (https://arxiv.org/abs/2009.14119) of each anchor, summed over its classes.

    Args:
        logits: Scores before the sigmoid [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        gamma_pos: Focusing of positive elements, at least 0.
        gamma_neg: Focusing of negative elements, 0 or at least 1.
        margin: Probability below which a negative element costs nothing, in [0, 1).
        detach_weight: Whether no gradient flows through the focusing factors, as in the authors' code by default.

    Returns:
        One value per anchor, 0 where it is ignored [A].

    Example:
        >>> asymmetric_loss(torch.tensor([[0.0, -3.0]]), torch.tensor([0]))
        tensor([0.3466])
    """
    return sum_over_classes(logits, labels, asymmetric_terms(gamma_pos, gamma_neg, margin, detach_weight))
