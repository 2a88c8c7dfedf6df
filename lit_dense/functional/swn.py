"""Sample weighting network, SWN (https://arxiv.org/abs/2006.06568): the weights of background anchors."""

import torch
from torch import Tensor

GRID = 2048
"""Number of losses at which the network is evaluated for background, evenly spaced in their logarithm."""


def loss_grid(device: torch.device) -> Tensor:
    """Return 0 and losses from 1e-6 to 1e4, evenly spaced in their logarithm [2048]."""
    powers = torch.logspace(-6, 4, GRID - 1, dtype=torch.float64, device=device)
    return torch.cat([powers.new_zeros(1), powers]).float()


def interpolate(values: Tensor, grid: Tensor, at_grid: Tensor) -> Tensor:
    """Interpolate a function linearly between grid points, with a gradient to its values at the grid points [N].

    Args:
        values: Points at which to evaluate the function, detached [N]. Beyond the grid it is constant.
        grid: Grid points, ascending [K].
        at_grid: Values of the function at the grid points [K].

    Example:
        >>> interpolate(torch.tensor([0.5, 9.0]), torch.tensor([0.0, 1.0, 3.0]), torch.tensor([2.0, 4.0, 0.0]))
        tensor([3., 0.])
    """
    right = torch.searchsorted(grid, values.contiguous()).clamp(1, len(grid) - 1)
    share = ((values - grid[right - 1]) / (grid[right] - grid[right - 1])).clamp(0, 1)
    return at_grid[right - 1] * (1 - share) + at_grid[right] * share
