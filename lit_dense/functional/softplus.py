"""Softplus, and the logarithm of 1 + x, at the full speed of a CPU (no paper)."""

from __future__ import annotations  # torch 2.4 cannot compile nested functions annotated with X | None

import torch
import torch.nn.functional as F
from torch import Tensor

LINEAR_FROM = 40.0
"""Logit from which softplus(x) is x: exp(-40) is below the rounding of float64. PyTorch's default 20 is not."""
WORTH_MAPPING = 4096
"""Number of elements from which mapping the page of constants is worth its two microseconds."""


def softplus(x: Tensor) -> Tensor:
    """Compute ``log(1 + exp(x))``, the cross-entropy of a negative logit; ``softplus(-x)`` is that of a positive.

    The relative error is below 2e-7 in float32 and below 1e-15 in float64, from the smallest normal number to infinity.
    NaN stays NaN. All formulas use this function instead of ``torch.nn.functional.softplus``: see
    :func:`map_constants`.

    Args:
        x: Logits of any shape, float32 or float64.

    Example:
        >>> softplus(torch.tensor([-100.0, 0.0, 100.0]))
        tensor([3.7835e-44, 6.9315e-01, 1.0000e+02])
    """
    map_constants(x)
    return F.softplus(x, threshold=LINEAR_FROM)


def log1p(x: Tensor) -> Tensor:
    """Compute ``log(1 + x)``; see :func:`map_constants` for the difference to ``torch.log1p``.

    Args:
        x: Numbers above -1, of any shape.
    """
    map_constants(x)
    return torch.log1p(x)


def map_constants(x: Tensor) -> None:
    """Make ``log1p`` and ``softplus`` ten times faster on CPUs with AVX-512, in this process and as long as needed.

    PyTorch's vector code for ``log1p`` ends with an instruction that replaces results for an input of -0 by a constant
    in memory. Without such an input, the instruction reads nothing, so the operating system never maps the page of the
    constant. Each execution of the instruction on a page that is not mapped takes about 400 cycles, once per 16
    elements. A computation with -0 maps the page. The operating system can unmap it later, so each large computation
    maps it again. The effect is described in ``docs/performance.md``; ``benchmarks/ops.py`` measures it.

    Args:
        x: Tensor that will be computed. Nothing is done for small tensors, other types, on a GPU, and in compiled code.
    """
    if torch.compiler.is_compiling():
        return
    if x.dtype == torch.float32 and x.device.type == "cpu" and x.numel() >= WORTH_MAPPING:
        torch.full((64,), -0.0, device=x.device).log1p_()
