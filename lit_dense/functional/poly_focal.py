"""Poly-1 focal loss (https://arxiv.org/abs/2204.12511)."""

from __future__ import annotations  # torch 2.4 cannot compile nested functions annotated with X | None

import torch
from torch import Tensor

from .fused.sigmoid_terms import SigmoidTerms, ValueAndSlope, sum_over_classes
from .softplus import power, softplus


def poly_focal_terms(
    alpha: float = 0.25, gamma: float = 2.0, epsilon: float = -1.0, balanced: bool = True
) -> SigmoidTerms:
    """Return the terms of poly-1 focal loss."""

    def cost(x: Tensor, weight: float) -> ValueAndSlope:
        """Return focal loss plus epsilon times its first polynomial term, of a negative logit."""
        p, entropy = torch.sigmoid(x), softplus(x)
        q, factor = 1 - p, weight * power(p, gamma)
        added = factor * p if balanced else power(p, gamma + 1)
        slope = factor * torch.addcmul(p, q, entropy, value=gamma)
        return (
            torch.add(factor * entropy, added, alpha=epsilon),
            torch.addcmul(slope, added, q, value=epsilon * (gamma + 1)),
        )

    def negative(x: Tensor, labels: Tensor) -> ValueAndSlope:
        return cost(x, 1 - alpha)

    def positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> ValueAndSlope:
        value, slope = cost(-x, alpha)
        return value, -slope

    return SigmoidTerms(negative, positive)


def poly_focal_loss(
    logits: Tensor,
    labels: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    epsilon: float = -1.0,
    balanced: bool = True,
) -> Tensor:
    """Poly-1 focal loss (https://arxiv.org/abs/2204.12511) of each anchor, summed over classes.

    It is focal loss plus ``epsilon * (1 - p_t) ** (gamma + 1)``.

    Args:
        logits: Class logits [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        alpha: Weight of positive terms, in [0, 1]; negative terms have weight ``1 - alpha``.
        gamma: Focusing exponent, at least 0.
        epsilon: Weight of the added term; -1 removes the first term of the polynomial expansion of focal loss.
        balanced: Whether alpha also weighs the added term. If not, the loss rewards slightly uncertain background where
            epsilon is below ``alpha - 1``, and slightly uncertain objects where it is below ``-alpha``.

    Returns:
        One value per anchor, 0 for ignored anchors [A].

    Example:
        >>> poly_focal_loss(torch.tensor([[2.1972]]), torch.tensor([0]), epsilon=1.0, balanced=False)
        tensor([0.0013])
    """
    return sum_over_classes(logits, labels, poly_focal_terms(alpha, gamma, epsilon, balanced))
