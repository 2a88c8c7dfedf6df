"""Functions that describe differences of tensors and states, and compare gradients with finite differences."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def difference(actual: Any, expected: Any, relative: float = 0.0) -> str | None:
    """Describe the difference of two values; None if they are equal.

    Args:
        actual: A tensor, or an object that is compared with ``==``.
        expected: The expected value.
        relative: Largest accepted difference, as a share of the largest expected number.
    """
    if not (isinstance(actual, Tensor) and isinstance(expected, Tensor)):
        return None if actual == expected else f"{actual!r} instead of {expected!r}"
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return f"{_kind(actual)} instead of {_kind(expected)}"
    wide, reference = actual.detach().double(), expected.detach().double()
    finite = reference[reference.isfinite()].abs()
    allowed = relative * float(finite.max()) if len(finite) else 0.0
    close = torch.isclose(wide, reference, rtol=0.0, atol=allowed, equal_nan=True)
    if close.all():
        return None
    worst = int((wide - reference).abs().masked_fill(close, -1.0).nan_to_num(torch.inf).argmax())
    return (
        f"{int((~close).sum())} of {close.numel()} numbers differ, the worst being "
        f"{float(wide.flatten()[worst]):.8g} instead of {float(reference.flatten()[worst]):.8g}"
    )


def state_difference(actual: Mapping[str, Any], expected: Mapping[str, Any], relative: float = 0.0) -> str | None:
    """Describe the first difference of two state dicts; None if they are equal."""
    if actual.keys() != expected.keys():
        return f"the keys {sorted(actual)} instead of {sorted(expected)}"
    for name, value in expected.items():
        if found := difference(actual[name], value, relative):
            return f"{name}: {found}"
    return None


def copied_state(module: torch.nn.Module) -> dict[str, Any]:
    """Return a copy of a module's state dict, which later steps do not change."""
    return {k: v.clone() if isinstance(v, Tensor) else v for k, v in module.state_dict().items()}


def slope_difference(function: Callable[[Tensor], Tensor], inputs: Tensor, step: float = 1e-6) -> str | None:
    """Describe the largest difference between a gradient and finite differences; None if they agree.

    For a scalar function this is equivalent to ``torch.autograd.gradcheck``, with the same tolerances and a more
    detailed message.

    Args:
        function: A function of a tensor that returns one number.
        inputs: The point at which the gradient is checked, in float64.
        step: Half the distance of the two points of a central difference.
    """
    leaf = inputs.detach().clone().requires_grad_()
    total = function(leaf)
    (gradient,) = torch.autograd.grad(total, leaf, allow_unused=True) if total.requires_grad else (None,)
    backward = torch.zeros_like(leaf) if gradient is None else gradient
    slopes = torch.empty_like(leaf)
    with torch.no_grad():
        for index in range(leaf.numel()):
            sides = []
            for side in (-step, step):
                moved = inputs.detach().clone()
                moved.view(-1)[index] += side
                sides.append(function(moved).double())
            slopes.view(-1)[index] = (sides[1] - sides[0]) / (2 * step)
    close = torch.isclose(backward, slopes, rtol=1e-3, atol=1e-5)
    if close.all():
        return None
    worst = int((backward - slopes).abs().nan_to_num(torch.inf).argmax())
    row, column = divmod(worst, inputs.shape[1])
    return (
        f"{int((~close).sum())} of {close.numel()} derivatives differ, the worst in row {row}, column {column} (input "
        f"{float(inputs[row, column]):.4g}): backward gives {float(backward[row, column]):.6g}, finite differences "
        f"{float(slopes[row, column]):.6g}"
    )


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
