"""Selection of the smallest costs of each row, the same on every device (no paper)."""

import torch
from torch import Tensor


def stable_smallest(costs: Tensor, numbers: Tensor | int, most: int) -> Tensor:
    """Mark the smallest finite costs of each row; of equal costs, those in the first columns.

    ``Tensor.topk`` chooses arbitrarily among equal values, and differently on a CPU and a GPU.

    Args:
        costs: Costs; infinite ones are never marked [G, N].
        numbers: Number of costs to mark in each row, at least 1 [G], or one number for all rows.
        most: Largest number of all rows.

    Returns:
        Whether a cost is among the smallest of its row [G, N].

    Example:
        >>> stable_smallest(torch.tensor([[3.0, 1, 1, 1], [2, 2, torch.inf, torch.inf]]), torch.tensor([2, 3]), 3)
        tensor([[False,  True,  True, False],
                [ True,  True, False, False]])
    """
    most = min(most, costs.shape[1])
    if not most:
        return torch.zeros_like(costs, dtype=torch.bool)
    numbers = torch.as_tensor(numbers, device=costs.device).clamp(max=most).expand(len(costs)).unsqueeze(1)
    largest = costs.topk(most, dim=1, largest=False).values.gather(1, numbers - 1)
    smaller, equal = costs < largest, costs == largest
    is_first = equal.cumsum(1, dtype=torch.int32) <= numbers - smaller.sum(1, keepdim=True)
    return (smaller | (equal & is_first)) & (costs < torch.inf)
