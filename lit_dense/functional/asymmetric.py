"""Asymmetric loss (https://arxiv.org/abs/2009.14119)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .elements import Elements, ValueAndSlope, sum_over_classes


def asymmetric_elements(
    gamma_pos: float = 1.0, gamma_neg: float = 4.0, margin: float = 0.05, detach_weight: bool = False
) -> Elements:
    """The two branches of asymmetric loss: a focal factor each, and probabilities of negatives shifted down."""

    def negative(x: Tensor, labels: Tensor) -> ValueAndSlope:
        p, q = torch.sigmoid(x), torch.sigmoid(-x)
        shifted = (p - margin).clamp(min=0)
        # without a margin the probability of a no can underflow, and with one it cannot
        cost = -(q + margin).clamp(max=1).log() if margin > 0 else F.softplus(x)
        ratio = q / (q + margin) if margin > 0 else torch.ones_like(q)
        weight = shifted**gamma_neg
        slope = weight * p * ratio * (shifted > 0)
        if not detach_weight and gamma_neg > 0:
            slope = slope + gamma_neg * shifted ** (gamma_neg - 1) * cost * p * q
        return (weight.detach() if detach_weight else weight) * cost, slope

    def positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> ValueAndSlope:
        p, q, cost = torch.sigmoid(x), torch.sigmoid(-x), F.softplus(-x)
        weight = q**gamma_pos
        slope = -weight * q
        if not detach_weight:
            slope = slope - gamma_pos * weight * p * cost
        return (weight.detach() if detach_weight else weight) * cost, slope

    return Elements(negative, positive)


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
    return sum_over_classes(logits, labels, asymmetric_elements(gamma_pos, gamma_neg, margin, detach_weight))
