"""From logits to one value per anchor, in one pass over chunks that fit a cache: the mechanism behind every loss."""

from __future__ import annotations  # torch 2.4 compiles no function that is defined in another with X | None

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .chunking import Chunked

IGNORED = -2
LARGEST_LOGIT = 1e5  # beyond float16's largest number, so that only an infinite logit is changed

_plain: ContextVar[bool] = ContextVar("plain", default=False)


class Rows(NamedTuple):
    """What a formula says of n anchors.

    Args:
        values: Loss of each [n].
        slopes: Derivative of each value with respect to the anchor's own logits [n, L].
        statistic: Anything that is added up over anchors, of one shape whatever n.
    """

    values: Tensor
    slopes: Tensor
    statistic: Tensor | None = None


Formula = Callable[[Tensor, Tensor, Tensor | None], Rows]


@contextmanager
def plain_path() -> Iterator[None]:
    """Let autograd differentiate whole tensors in place of the closed-form derivatives, within this context.

    It needs several times the memory and time and gives the same numbers: what the fast path is tested against, and
    what ``torch.compile`` sees.

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
    """Apply a formula to all anchors, chunk by chunk.

    Values and derivatives are computed together, in float32 whatever the logits' type; the only tensor as large as the
    logits is their gradient. Weights that multiply the values later reach the gradient in the backward pass. Infinite
    logits count as very large ones; NaN stays NaN.

    Args:
        logits: Scores [A, L].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        formula: Gives :class:`Rows` of logits [n, L], labels [n] and targets [n].
        targets: Passed on to the formula with the anchors they belong to [A].

    Returns:
        One value per anchor, 0 where it is ignored, connected to the logits [A]; and the sum of the statistics.
    """
    if torch.compiler.is_compiling() or _plain.get():  # torch 2.4 compiles no context variable
        rows = formula(readable(logits), labels, targets)
        return rows.values.masked_fill(labels == IGNORED, 0.0), rows.statistic
    needs_grad = torch.is_grad_enabled() and logits.requires_grad
    answer: tuple[Tensor, Tensor | None] = _PerAnchor.apply(logits, labels, targets, formula, needs_grad)
    return answer


def readable(logits: Tensor) -> Tensor:
    """Logits as a formula may read them: a copy of its own, float32 or wider, finite or NaN."""
    wide = logits.float() if logits.dtype.itemsize < 4 else logits
    return wide.clamp(-LARGEST_LOGIT, LARGEST_LOGIT)


@Chunked
def _rows(
    formula: Formula, logits: Tensor, labels: Tensor, targets: Tensor | None, with_slopes: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Values [n], slopes [n, L] and statistic of a chunk."""
    rows = formula(readable(logits), labels, targets)
    return rows.values, rows.slopes if with_slopes else None, rows.statistic


@Chunked
def _scaled_slopes(
    formula: Formula, logits: Tensor, labels: Tensor, targets: Tensor | None, slopes: Tensor, scale: Tensor
) -> None:
    """Write the slopes of all logits [n, L], each row times a number [n, 1]."""
    slopes.copy_(formula(readable(logits), labels, targets).slopes * scale)


class _PerAnchor(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, targets: Tensor | None, formula: Formula, needs_grad: bool
    ) -> tuple[Tensor, Tensor | None]:
        ctx.formula, ctx.compiled = formula, _rows.compiles(logits)
        # Half precision would round slopes before the loss scale is applied, and what is compiled has computed them
        # sooner than it has read them again: there they come in the backward pass.
        keep = needs_grad and logits.dtype.itemsize >= 4 and not ctx.compiled
        slopes = torch.empty_like(logits) if keep else None

        def of_chunk(rows: Callable[..., Any], chunk: slice) -> Any:
            return chunk, rows(formula, logits[chunk], labels[chunk], _part(targets, chunk), keep)

        values, statistic = [], None
        for chunk, (value, slope, own) in _rows.over(logits, of_chunk, ctx.compiled):
            values.append(value)
            if slopes is not None:
                slopes[chunk] = slope
            if own is not None:
                statistic = own if statistic is None else statistic + own
        ctx.slopes = slopes
        ctx.save_for_backward(logits, labels, targets)
        if statistic is not None:
            ctx.mark_non_differentiable(statistic)
        return torch.cat(values).masked_fill_(labels == IGNORED, 0.0), statistic

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor, None, None, None, None]:
        logits, labels, targets = ctx.saved_tensors
        scale = grad.masked_fill(labels == IGNORED, 0.0).unsqueeze(1)
        slopes, ctx.slopes = ctx.slopes, None
        if slopes is not None:
            return slopes.mul_(scale), None, None, None, None
        slopes = torch.empty_like(logits)

        def of_chunk(write: Callable[..., None], chunk: slice) -> None:
            write(ctx.formula, logits[chunk], labels[chunk], _part(targets, chunk), slopes[chunk], scale[chunk])

        for _ in _scaled_slopes.over(logits, of_chunk, ctx.compiled):
            pass
        return slopes, None, None, None, None


def _part(tensor: Tensor | None, chunk: slice) -> Tensor | None:
    return None if tensor is None else tensor[chunk]
