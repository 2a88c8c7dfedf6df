"""Poly-1 focal loss (https://arxiv.org/abs/2204.12511)."""

from __future__ import annotations  # torch 2.4 compiles no function that is defined in another with X | None

import torch
import torch.nn.functional as F
from torch import Tensor

from .fused.sigmoid_terms import SigmoidTerms, ValueAndSlope, sum_over_classes


def poly_focal_terms(
    alpha: float = 0.25, gamma: float = 2.0, epsilon: float = -1.0, balanced: bool = True
) -> SigmoidTerms:
    """The two branches of poly-1 focal loss."""

    def cost(x: Tensor, weight: float) -> ValueAndSlope:
        """Focal loss and its first polynomial term, of a logit that should be low."""
        p, entropy = torch.sigmoid(x), F.softplus(x)
        q, factor = 1 - p, weight * p**gamma
        added = factor * p if balanced else p ** (gamma + 1)
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
    """Poly-1 focal loss (https://arxiv.org/abs/2204.12511) of each anchor, summed over its classes.

    Focal loss plus ``epsilon * (1 - p_t) ** (gamma + 1)``.

    Args:
        logits: Scores before the sigmoid [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        alpha: Weight of positive elements, ``1 - alpha`` of negative ones, in [0, 1].
        gamma: How strongly right elements are turned down, at least 0.
        epsilon: Weight of the added term; -1 takes the first term of the loss's series away.
        balanced: Whether alpha weighs the added term too. Without, an epsilon below ``alpha - 1`` rewards background
            and one below ``-alpha`` objects for being a little unsure.

    Returns:
        One value per anchor, 0 where it is ignored [A].

    Example:
        >>> poly_focal_loss(torch.tensor([[2.1972]]), torch.tensor([0]), epsilon=1.0, balanced=False)
        tensor([0.0013])
    """
    return sum_over_classes(logits, labels, poly_focal_terms(alpha, gamma, epsilon, balanced))
