"""Sample weighting network, SWN (https://arxiv.org/abs/2006.06568)."""

import torch
from torch import Tensor

GRID = 2048
"""Losses at which the network is asked for background, spaced evenly in their logarithm."""


def loss_grid(device: torch.device) -> Tensor:
    """Losses from 0 to 1e4, closer together the smaller they are [2048]."""
    powers = torch.logspace(-6, 4, GRID - 1, dtype=torch.float64, device=device)
    return torch.cat([powers.new_zeros(1), powers]).float()


def interpolate(values: Tensor, grid: Tensor, at_grid: Tensor) -> Tensor:
    """A function known on a grid, at other places, with gradient to its values on the grid.

    Args:
        values: Where to ask, detached; beyond the grid's ends the ends answer [N].
        grid: Ascending [K].
        at_grid: The function there [K].

    Example:
        >>> interpolate(torch.tensor([0.5, 9.0]), torch.tensor([0.0, 1.0, 3.0]), torch.tensor([2.0, 4.0, 0.0]))
        tensor([3., 0.])
    """
    right = torch.searchsorted(grid, values.contiguous()).clamp(1, len(grid) - 1)
    share = ((values - grid[right - 1]) / (grid[right] - grid[right - 1])).clamp(0, 1)
    return at_grid[right - 1] * (1 - share) + at_grid[right] * share
