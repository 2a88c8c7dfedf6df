"""Effective class-margin loss, ECM (https://arxiv.org/abs/2301.09724)."""

from __future__ import annotations  # torch 2.4 cannot compile nested functions annotated with X | None

import torch
from torch import Tensor

from .fused.sigmoid_terms import SigmoidTerms, ValueAndSlope, sum_over_classes
from .softplus import softplus


def ecm_margins(counts: Tensor, background_ratio: float = 6.3313) -> tuple[Tensor, Tensor]:
    """Compute margins and weights of the classes from their frequencies (https://arxiv.org/abs/2301.09724).

    Args:
        counts: Number of images, or of samples, of each class; 0 is read as 1 [C].
        background_ratio: Number of background samples over the sum of all counts, above 0. The authors' number of
            proposals on LVIS is 6.3313.

    Returns:
        The margin ``log(n / n_other) / 4`` and the weight ``a * log((1 + a) / a)``, ``a = n_other / n``, of each class,
        where ``n_other`` counts the other classes and background [C].

    Example:
        >>> ecm_margins(torch.tensor([1000.0, 50.0, 5.0]))
        (tensor([-0.4768, -1.2587, -1.8358]), tensor([0.9324, 0.9968, 0.9997]))
    """
    n = counts.double().clamp(min=1)
    ratio = (n.sum() * (1 + background_ratio) - n) / n
    return (-ratio.log() / 4).float(), (ratio * torch.log1p(1 / ratio)).float()


def ecm_terms(margins: Tensor, weights: Tensor) -> SigmoidTerms:
    """Return the terms of ECM: weighted cross-entropy of ``2 * x + margin``; a soft target mixes both terms.

    Args:
        margins: Margin of each class [C].
        weights: Weight of each class [C].
    """

    def negative(x: Tensor, labels: Tensor) -> ValueAndSlope:
        z = torch.add(margins, x, alpha=2)
        return weights * softplus(z), torch.sigmoid(z) * (2 * weights)

    def positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> ValueAndSlope:
        column = labels.clamp(min=0)
        z, weight = 2 * x + margins[column], weights[column]
        y = 1.0 if targets is None else targets
        return weight * (y * softplus(-z) + (1 - y) * softplus(z)), 2 * weight * (torch.sigmoid(z) - y)

    return SigmoidTerms(negative, positive)


def ecm_loss(
    logits: Tensor, labels: Tensor, margins: Tensor, weights: Tensor, soft_targets: Tensor | None = None
) -> Tensor:
    """Effective class-margin loss (https://arxiv.org/abs/2301.09724) of each anchor, summed over classes.

    Args:
        logits: Class logits [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        margins: Margin of each class, from :func:`ecm_margins` [C].
        weights: Weight of each class, from :func:`ecm_margins` [C].
        soft_targets: Target of the logit of each anchor's class, in [0, 1]; None means 1 [A].

    Returns:
        One value per anchor, 0 for ignored anchors [A].

    Example:
        >>> ecm_loss(torch.tensor([[1.0, -1.0]]), torch.tensor([0]), torch.tensor([0.0, -1.0]), torch.ones(2))
        tensor([0.1755])
    """
    return sum_over_classes(logits, labels, ecm_terms(margins, weights), soft_targets)
