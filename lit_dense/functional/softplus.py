"""Softplus, the logarithm of 1 + x, and powers, at the full speed of CPU and GPU (no paper)."""

from __future__ import annotations  # torch 2.4 cannot compile nested functions annotated with X | None

import torch
import torch.nn.functional as F
from torch import Tensor

LINEAR_FROM = 40.0
"""Logit from which softplus(x) is x: exp(-40) is below the rounding of float64. PyTorch's default 20 is not."""
LOG2_E = 1.4426950408889634
LOG1P_OVER_X = (
    1.0,
    -0.499995023,
    0.333192706,
    -0.248443693,
    0.191114306,
    -0.136747703,
    0.0783616677,
    -0.0295885075,
    0.00525345793,
)
"""Coefficients of ``log(1 + x) / x`` in ascending order, a Chebyshev interpolation between 0 and 1."""
WORTH_MAPPING = 4096
"""Number of elements from which mapping the page of constants is worth its two microseconds."""


def softplus(x: Tensor) -> Tensor:
    """Compute ``log(1 + exp(x))``, the cross-entropy of a negative logit; ``softplus(-x)`` is that of a positive.

    The relative error is below 2e-7 in float32 and below 1e-15 in float64, from the smallest normal number to infinity.
    NaN stays NaN. All formulas use this function instead of ``torch.nn.functional.softplus``: see
    :func:`map_constants`. Code that is compiled without autograd has a formula of fewer instructions in float32; the
    rounding of its exponent adds a relative error of up to 1e-7 times the size of negative logits.

    Args:
        x: Logits of any shape, float32 or float64.

    Example:
        >>> softplus(torch.tensor([-100.0, 0.0, 100.0]))
        tensor([3.7835e-44, 6.9315e-01, 1.0000e+02])
    """
    if torch.compiler.is_compiling() and not torch.is_grad_enabled() and x.dtype == torch.float32:
        return x.clamp(min=0) + _log1p_to_one(torch.exp2(x.abs() * -LOG2_E))
    map_constants(x)
    return F.softplus(x, threshold=LINEAR_FROM)


def _log1p_to_one(x: Tensor) -> Tensor:
    """Compute ``log(1 + x)`` for x in [0, 1], with a relative error below 2e-7 in float32.

    A GPU needs a third of the instructions of ``log1p``.
    """
    *others, quotient = LOG1P_OVER_X
    result = x * quotient
    for coefficient in reversed(others):
        result = (result + coefficient) * x
    return result


def log1p(x: Tensor) -> Tensor:
    """Compute ``log(1 + x)``; see :func:`map_constants` for the difference to ``torch.log1p``.

    Args:
        x: Numbers above -1, of any shape.
    """
    map_constants(x)
    return torch.log1p(x)


def power(p: Tensor, exponent: float) -> Tensor:
    """Compute ``p ** exponent`` of probabilities.

    Code that is compiled without autograd computes exponents that are no integers by logarithms, in half of a GPU's
    instructions. Their rounding adds a relative error of up to 1e-7 times the logarithm of the result.

    Args:
        p: Probabilities of any shape, in [0, 1].
        exponent: At least 0.

    Example:
        >>> power(torch.tensor([0.0, 0.25, 1.0]), 1.5)
        tensor([0.0000, 0.1250, 1.0000])
    """
    if torch.compiler.is_compiling() and not torch.is_grad_enabled() and not float(exponent).is_integer():
        return torch.exp2(exponent * torch.log2(p))
    return p**exponent


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
