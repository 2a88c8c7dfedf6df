"""Class weights by a power of the inverse number of boxes (no paper)."""

import torch
from torch import Tensor

LARGEST_RATIO = 100.0
"""Largest ratio of two balanced weights: a class with a handful of boxes must not dominate the loss."""


def inverse_count_weights(counts: Tensor, power: float = 1.0) -> Tensor:
    """Compute weights proportional to ``count ** -power``, with mean 1 over the classes that occur (no paper).

    With power 1 and counts within a factor of 100 the ratios are those of scikit-learn's ``class_weight="balanced"``.
    A weight is at most 100 times the smallest one.

    Args:
        counts: Number of boxes of each class [C].
        power: Power of the inverse counts; 0 gives all classes the weight 1, 0.5 the inverse square root.

    Returns:
        Weight of each class, 1 for classes without boxes [C].

    Example:
        >>> inverse_count_weights(torch.tensor([1000.0, 100.0, 10.0, 0.0]))
        tensor([0.0270, 0.2703, 2.7027, 1.0000])
    """
    occurs = counts > 0
    weights = counts.double().clamp(min=1) ** -power
    least = weights.where(occurs, torch.inf).amin()
    balanced = mean_one(weights.clamp(max=LARGEST_RATIO * least), occurs)
    return torch.where(occurs, balanced, 1.0).to(counts.dtype)


def mean_one(weights: Tensor, occurs: Tensor) -> Tensor:
    """Divide weights by their mean over the classes that occur (no paper).

    Args:
        weights: Weight of each class [C].
        occurs: Whether a class occurs; if none does, the mean is over all classes [C].

    Example:
        >>> mean_one(torch.tensor([1.0, 2.0, 5.0]), torch.tensor([True, False, True]))
        tensor([0.3333, 0.6667, 1.6667])
    """
    counted = occurs | ~occurs.any()
    return weights / (weights * counted).sum() * counted.sum()
