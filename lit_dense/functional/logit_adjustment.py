"""Logit adjustment by class frequency (https://arxiv.org/abs/2007.07314)."""

from torch import Tensor


def frequency_offsets(counts: Tensor) -> Tensor:
    """Compute the logarithm of class counts, with mean 0 over the classes that occur (https://arxiv.org/abs/2007.07314).

    Logit adjustment subtracts a multiple of it from the logits of single classes, which raises rare classes and keeps
    the scale of scores. A class without objects counts as one with one object.

    Args:
        counts: Number of objects of each class [C].

    Returns:
        Offset of each class, in the dtype of the counts, or float32 for integers [C].

    Example:
        >>> import torch
        >>> frequency_offsets(torch.tensor([100.0, 1.0, 0.0]))
        tensor([ 2.3026, -2.3026, -2.3026])
    """
    logs = counts.clamp(min=1).log()
    occurs = (counts > 0).to(logs.dtype)
    return logs - (logs * occurs).sum() / occurs.sum().clamp(min=1)
