"""Focal loss (https://arxiv.org/abs/1708.02002)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .anchor_sum import sum_over_classes


def focal_loss(logits: Tensor, labels: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Focal loss (https://arxiv.org/abs/1708.02002) of each anchor, summed over its classes.

    Cross-entropy times ``(1 - p_t) ** gamma``: elements that are already right count little. Gradients flow through
    that factor, as in the paper.

    Args:
        logits: Scores before the sigmoid [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        alpha: Weight of positive elements, ``1 - alpha`` of negative ones, in [0, 1].
        gamma: How strongly right elements are turned down, at least 0; 0 gives cross-entropy.

    Returns:
        One value per anchor, 0 where it is ignored [A].

    Example:
        >>> focal_loss(torch.tensor([[0.0, 2.0], [0.0, -2.0]]), torch.tensor([0, -2]))
        tensor([1.2809, 0.0000])
    """

    def negative(x: Tensor) -> Tensor:
        return (1 - alpha) * torch.exp(gamma * F.logsigmoid(x)) * F.softplus(x)

    def positive(x: Tensor) -> Tensor:
        return alpha * torch.exp(gamma * F.logsigmoid(-x)) * F.softplus(-x)

    return sum_over_classes(logits, labels, negative, positive)
