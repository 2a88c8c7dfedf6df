"""Weights of classes by their effective number of samples (https://arxiv.org/abs/1901.05555)."""

import torch
from torch import Tensor


def effective_number_weights(counts: Tensor, beta: float = 0.9999) -> Tensor:
    """Weight of each class, ``(1 - beta) / (1 - beta ** n)``, with mean 1 (https://arxiv.org/abs/1901.05555).

    Args:
        counts: Samples of each class; a class with none has weight 1 and does not count in the mean [C].
        beta: In [0, 1): 0 weighs all alike, near 1 by the inverse of counts.

    Returns:
        Weights [C].

    Example:
        >>> effective_number_weights(torch.tensor([1000.0, 100.0, 10.0, 0.0]))
        tensor([0.0284, 0.2713, 2.7004, 1.0000])
    """
    seen = counts > 0
    # expm1, for beta ** n is nearly 1 where counts are small
    exponent = counts.double() * torch.tensor(beta, dtype=torch.float64, device=counts.device).log()
    raw = torch.where(seen, (1 - beta) / -torch.expm1(exponent), 0.0)
    mean = raw.sum() / seen.sum().clamp(min=1)
    return torch.where(seen, raw / mean.clamp(min=torch.finfo(raw.dtype).tiny), 1.0).to(counts.dtype)
