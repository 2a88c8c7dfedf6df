"""``per_anchor``: the autograd function that computes a loss and its gradient in one pass over the logits."""

from __future__ import annotations  # torch 2.4 cannot compile nested functions annotated with X | None

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .chunking import Chunked

IGNORED = -2
LARGEST_LOGIT = 1e5  # larger than any finite float16, so that only infinite half-precision logits are changed

_plain: ContextVar[bool] = ContextVar("plain", default=False)


class Rows(NamedTuple):
    """Result of a formula for a chunk of n anchors.

    Args:
        values: Loss of each anchor [n].
        slopes: Derivative of each value with respect to the logits of its anchor [n, L].
        statistic: Sum over the anchors of any quantity; its shape must not depend on n.
    """

    values: Tensor
    slopes: Tensor
    statistic: Tensor | None = None


Formula = Callable[[Tensor, Tensor, Tensor | None], Rows]
"""Computes :class:`Rows` from logits [n, L], labels [n] and targets [n] or None."""


@contextmanager
def plain_path() -> Iterator[None]:
    """Use autograd on whole tensors instead of the closed-form gradients, within this context.

    The results are the same, with several times the memory and time. Tests compare the fast path with this one, and
    ``torch.compile`` traces this one.

    Example:
        >>> from lit_dense.functional import focal_loss
        >>> logits, labels = torch.randn(4, 3), torch.tensor([0, 2, -1, -2])
        >>> with plain_path():
        ...     plain = focal_loss(logits, labels)
        >>> torch.allclose(plain, focal_loss(logits, labels))
        True
    """
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def per_anchor(
    logits: Tensor, labels: Tensor, formula: Formula, targets: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Apply a formula to all anchors, one chunk at a time.

    Values and gradients are computed together, in float32 or wider. The only tensor as large as the logits is their
    gradient. If values are multiplied by weights later, the backward pass applies the weights to the gradient. Infinite
    logits are replaced by very large ones; NaN stays NaN.

    Args:
        logits: Class logits [A, L].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        formula: Computes :class:`Rows` from logits [n, L], labels [n] and targets [n].
        targets: Passed to the formula, sliced like the anchors [A].

    Returns:
        One value per anchor, 0 for ignored anchors, connected to the logits [A]; and the sum of the statistics.
    """
    if torch.compiler.is_compiling() or _plain.get():  # torch 2.4 cannot compile context variables: test them last
        rows = formula(readable(logits), labels, targets)
        return rows.values.masked_fill(labels == IGNORED, 0.0), rows.statistic
    needs_grad = torch.is_grad_enabled() and logits.requires_grad
    result: tuple[Tensor, Tensor | None] = _PerAnchor.apply(logits, labels, targets, formula, needs_grad)
    return result


def readable(logits: Tensor) -> Tensor:
    """Copy logits for a formula: float32 or wider, with infinite logits replaced by very large ones."""
    wide = logits.float() if logits.dtype.itemsize < 4 else logits
    return wide.clamp(-LARGEST_LOGIT, LARGEST_LOGIT)


@Chunked
def _rows(
    logits: Tensor, labels: Tensor, targets: Tensor | None, formula: Formula, with_slopes: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Compute values [n], slopes [n, L] or None, and statistic of a chunk."""
    rows = formula(readable(logits), labels, targets)
    return rows.values, rows.slopes if with_slopes else None, rows.statistic


@Chunked
def _scaled_slopes(
    logits: Tensor, labels: Tensor, targets: Tensor | None, slopes: Tensor, scale: Tensor, formula: Formula
) -> None:
    """Write the slopes of a chunk to ``slopes`` [n, L], multiplied by ``scale`` [n, 1]."""
    slopes.copy_(formula(readable(logits), labels, targets).slopes * scale)


class _PerAnchor(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, targets: Tensor | None, formula: Formula, needs_grad: bool
    ) -> tuple[Tensor, Tensor | None]:
        ctx.formula, ctx.compiled = formula, _rows.compiles(logits)
        # In two cases the backward pass computes the slopes again. In half precision, stored slopes would be rounded
        # before the loss scale is applied. A compiled formula is faster than reading stored slopes.
        keep = needs_grad and logits.dtype.itemsize >= 4 and not ctx.compiled
        slopes = torch.empty_like(logits) if keep else None

        values, statistic = [], None
        rows = _rows.over((logits, labels, targets), (formula, keep), ctx.compiled)
        for chunk, (value, slope, chunk_statistic) in rows:
            values.append(value)
            if slopes is not None:
                slopes[chunk] = slope
            if chunk_statistic is not None:
                statistic = chunk_statistic if statistic is None else statistic + chunk_statistic
        ignored = labels == IGNORED
        ctx.slopes = slopes
        ctx.save_for_backward(logits, labels, targets, ignored)
        if statistic is not None:
            ctx.mark_non_differentiable(statistic)
        return torch.cat(values).masked_fill_(ignored, 0.0), statistic

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor, None, None, None, None]:
        logits, labels, targets, ignored = ctx.saved_tensors
        scale = grad.masked_fill(ignored, 0.0).unsqueeze(1)
        slopes, ctx.slopes = ctx.slopes, None
        if slopes is not None:
            return slopes.mul_(scale), None, None, None, None
        slopes = torch.empty_like(logits)

        for _ in _scaled_slopes.over((logits, labels, targets, slopes, scale), (ctx.formula,), ctx.compiled):
            pass  # each chunk is written in place
        return slopes, None, None, None, None
