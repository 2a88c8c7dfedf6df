"""Fractal calibration, FRACAL (https://arxiv.org/abs/2410.11774)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .softplus import log1p

LARGEST_GRID, LEAST_OBJECTS = 64, 4
LARGEST_LOG_SCORE = -1e-6
"""Upper bound of the logarithm of a score, which keeps its logit finite."""


def fractal_dimension(centres: Tensor) -> float:
    """Estimate how uniformly points fill a square, by counting boxes (FRACAL, https://arxiv.org/abs/2410.11774).

    Grids of 1, 2, ... 64 cells a side are laid over the square, as long as there are as many points as cells. The
    dimension is the slope of the logarithm of the number of cells with points over the logarithm of the cells a side.

    Args:
        centres: Points in [0, 1], x y [N, 2].

    Returns:
        Dimension, from 1 to 2; 1 for fewer than four points.

    Example:
        >>> fractal_dimension(torch.cartesian_prod(torch.arange(8), torch.arange(8)) / 8)
        2.0
    """
    number = len(centres)
    if number < LEAST_OBJECTS:
        return 1.0
    sides = range(1, min(LARGEST_GRID, math.isqrt(number)) + 1)
    points = centres.double()
    filled = []
    for side in sides:
        cells = (points * side).long().clamp(0, side - 1)
        filled.append(len((cells[:, 0] * side + cells[:, 1]).unique()))
    x, y = torch.tensor(sides).double().log(), torch.tensor(filled).double().log()
    x, y = x - x.mean(), y - y.mean()
    return max(1.0, round(float((x * y).sum() / x.square().sum()), 12))


def fracal_offsets(frequencies: Tensor, dimensions: Tensor, power: float = 2.0) -> Tensor:
    """Compute the shifts of FRACAL (https://arxiv.org/abs/2410.11774): rare and clustered classes are raised.

    ``-log10(C f) - log10(C D^power / sum D^power)``

    Args:
        frequencies: Share of images with each class, above 0 [C].
        dimensions: Fractal dimension of each class, 1 to 2 [C].
        power: Exponent of the dimensions.

    Returns:
        Shift of each class, 0 for equal frequencies of 1 / C and equal dimensions [C].
    """
    log_share = (power * dimensions.log()).log_softmax(0)  # of D^power: a large power has no finite value
    number = len(frequencies)
    return -(number * frequencies).log10() - (math.log(number) + log_share) / math.log(10)


def fracal_logits(logits: Tensor, offsets: Tensor) -> Tensor:
    """Compute the logit of ``sigmoid(x) * sigmoid(x + offset)`` (FRACAL, https://arxiv.org/abs/2410.11774).

    Args:
        logits: Logits x, float32 or wider [...].
        offsets: Shift of each logit, of a shape that broadcasts [...].
    """
    log_score = (F.logsigmoid(logits) + F.logsigmoid(logits + offsets)).clamp(max=LARGEST_LOG_SCORE)
    return log_score - log1p(-log_score.exp())
