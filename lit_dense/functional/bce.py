"""Alpha-balanced binary cross-entropy (section 3.1 of https://arxiv.org/abs/1708.02002)."""

import torch.nn.functional as F
from torch import Tensor

from .anchor_sum import sum_over_classes


def bce_loss(logits: Tensor, labels: Tensor, alpha: float = 0.5) -> Tensor:
    """Alpha-balanced cross-entropy (https://arxiv.org/abs/1708.02002) of each anchor, summed over its classes.

    Args:
        logits: Scores before the sigmoid [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        alpha: Weight of positive elements, ``1 - alpha`` of negative ones, in [0, 1].

    Returns:
        One value per anchor, 0 where it is ignored [A].

    Example:
        >>> import torch
        >>> bce_loss(torch.tensor([[0.0, 0.0], [4.0, -4.0]]), torch.tensor([1, -1]))
        tensor([0.6931, 2.0181])
    """
    return sum_over_classes(logits, labels, lambda x: (1 - alpha) * F.softplus(x), lambda x: alpha * F.softplus(-x))
