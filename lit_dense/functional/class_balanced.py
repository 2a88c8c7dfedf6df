"""Class-balanced weights by the effective number of samples (https://arxiv.org/abs/1901.05555)."""

import torch
from torch import Tensor


def effective_number_weights(counts: Tensor, beta: float = 0.9999) -> Tensor:
    """Compute class weights ``(1 - beta) / (1 - beta ** n)``, scaled to mean 1 (https://arxiv.org/abs/1901.05555).

    Args:
        counts: Number of samples n of each class [C]. Classes without samples have weight 1 and are excluded from the
            mean.
        beta: In [0, 1): 0 gives all classes the same weight; close to 1, weights are inverse to the counts.

    Returns:
        Weights [C].

    Example:
        >>> effective_number_weights(torch.tensor([1000.0, 100.0, 10.0, 0.0]))
        tensor([0.0284, 0.2713, 2.7004, 1.0000])
    """
    has_samples = counts > 0
    # beta ** n is close to 1 for small counts; expm1 keeps the precision of 1 - beta ** n.
    exponent = counts.double() * torch.tensor(beta, dtype=torch.float64, device=counts.device).log()
    weights = torch.where(has_samples, (1 - beta) / -torch.expm1(exponent), 0.0)
    mean = weights.sum() / has_samples.sum().clamp(min=1)
    return torch.where(has_samples, weights / mean.clamp(min=torch.finfo(weights.dtype).tiny), 1.0).to(counts.dtype)
