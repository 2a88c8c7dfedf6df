"""``per_anchor``: a loss and its gradient in one pass over the logits, chunk by chunk.

Chunks are computed eagerly on a CPU, and compiled to one kernel on a GPU.
"""

from __future__ import annotations  # torch 2.4 cannot compile nested functions annotated with X | None

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..precision import float32_or_wider

IGNORED = -2
LARGEST_LOGIT = 1e5  # larger than any finite float16, so that only infinite half-precision logits are changed
WORTH_COMPILING = 2**20
"""Number of logits from which compilation is worth its seconds: a few images of a small detector."""
COMPILED_AT_MOST = 64
"""Most compiled graphs of one function; each configured loss needs one for training and one for validation."""
ALIGNED = 16
"""Chunks have a multiple of this number of rows, so that they begin at an aligned address."""

_plain: ContextVar[bool] = ContextVar("plain", default=False)
_forced: ContextVar[bool | None] = ContextVar("forced", default=None)
_late: ContextVar[bool] = ContextVar("late", default=False)
T = TypeVar("T")


class Rows(NamedTuple):
    """Result of a formula for a chunk of n anchors.

    Args:
        values: Loss of each anchor [n].
        slopes: Derivative of each value with respect to the logits of its anchor [n, L]; or a function that computes
            it, which is called only where the gradient is needed.
        statistic: Sum over the anchors of any quantity; its shape must not depend on n.
    """

    values: Tensor
    slopes: Tensor | Callable[[], Tensor]
    statistic: Tensor | None = None

    def computed_slopes(self) -> Tensor:
        """Return the slopes, computed if they are not yet [n, L]."""
        return self.slopes if isinstance(self.slopes, Tensor) else self.slopes()


Formula = Callable[[Tensor, Tensor, Tensor | None], Rows]
"""Computes :class:`Rows` from logits [n, L], labels [n] and targets [n] or None."""


class OwnTerms(Protocol):
    """Terms of one logit of each positive, that of its class, which are computed apart from all other logits."""

    @property
    def statistic(self) -> Tensor | None:
        """Added to the sum of the other logits' statistics; None if the formula has none."""

    def add_to(self, values: Tensor) -> Tensor:
        """Add the values of the positives to the values of all anchors [A]."""

    def write_to(self, slopes: Tensor, scale: Tensor) -> None:
        """Write the slopes, multiplied by the scale of each anchor [A, 1], into those of all logits [A, L]."""


class SplitFormula(NamedTuple):
    """A formula in which the logit of each positive's class differs from all others.

    Compiled code uses ``rest`` and ``own``. One kernel for both would compute the term of a class for every logit.

    Args:
        whole: Computes all logits.
        rest: Computes the same with 0 for the logits of the positives' classes.
        own: Computes the logits of the positives' classes, from logits [A, L], labels [A] and targets [A] or None.
    """

    whole: Formula
    rest: Formula
    own: Callable[[Tensor, Tensor, Tensor | None], OwnTerms]


@contextmanager
def compiled_formulas(wanted: bool = True) -> Iterator[None]:
    """Compile the formulas of losses on every device, or on none, within this context.

    By default formulas are compiled only for logits on a GPU that Triton supports. On a CPU, chunks that fit its cache
    are as fast. Compiled and eager results agree to a relative difference of 1e-5. The environment variable
    ``TORCH_COMPILE_DISABLE=1`` disables compilation for a whole run.

    Args:
        wanted: Whether to compile formulas.

    Example:
        >>> from lit_dense.functional import focal_loss
        >>> with compiled_formulas(False):
        ...     loss = focal_loss(torch.zeros(2, 3), torch.tensor([0, -1]))
    """
    token = _forced.set(wanted)
    try:
        yield
    finally:
        _forced.reset(token)


class NotCompiledError(Exception):
    """Raised if PyTorch runs a function eagerly: compilation is disabled, or the recompilation limit is reached."""


class Chunked:
    """A function of chunks of the logits, compiled on first use on a device where that is faster.

    If compilation fails, it warns once and runs the function eagerly from then on.

    Args:
        function: Function of tensors with one row per anchor, and of any other arguments.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._compiled: Callable[..., Any] | None = None
        self._works = True

    def compiles(self, logits: Tensor) -> bool:
        """Decide whether to compile the function for these logits."""
        if not self._works or torch.compiler.is_compiling():
            return False
        forced = _forced.get()
        if forced is not None:
            return forced and logits.numel() > 0
        return logits.is_cuda and logits.numel() >= WORTH_COMPILING and find_spec("triton") is not None

    def over(self, rows: Sequence[Tensor | None], args: Sequence[Any], compiled: bool) -> Iterator[tuple[slice, Any]]:
        """Apply the function to the anchors chunk by chunk; yield the slice and the result of each chunk.

        Args:
            rows: The first arguments, sliced for each chunk: logits [A, L], then other tensors [A, ...] or None.
            args: The other arguments.
            compiled: Result of :meth:`compiles`. Backward passes run in other threads, in which
                :func:`compiled_formulas` has no effect, so the result of the forward pass is passed on.
        """

        def of_chunk(function: Callable[..., Any], chunk: slice) -> tuple[slice, Any]:
            return chunk, function(*[None if tensor is None else tensor[chunk] for tensor in rows], *args)

        if torch.compiler.is_compiling():  # the user compiles the whole model
            yield of_chunk(self._function, slice(None))
            return
        logits: Any = rows[0]
        done, failure = 0, None  # number of finished anchors, error of the compiler
        if compiled and self._works:
            try:
                for chunk in chunks(logits, compiled=True):
                    yield of_chunk(self._call_compiled, chunk)
                    done = chunk.stop
                return
            except torch.cuda.OutOfMemoryError:
                raise
            except NotCompiledError:
                pass
            # A compiler can raise anything. If the function itself is at fault, it raises again below.
            except Exception as error:
                failure = error
        for chunk in chunks(logits, start=done):
            result = of_chunk(self._function, chunk)
            if failure is not None:
                self._stop_compiling(failure)
                failure = None
            yield result

    def _call_compiled(self, *args: Any) -> Any:
        if self._compiled is None:
            self._compiled = torch.compile(_only_compiled(self._function))
        for arg in args:
            if isinstance(arg, Tensor):  # avoids a recompilation for each number of anchors
                torch._dynamo.maybe_mark_dynamic(arg, 0)
        config = torch._dynamo.config
        limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # before torch 2.6
        before = getattr(config, limit)
        setattr(config, limit, COMPILED_AT_MOST)  # config.patch defines a class each time, as slow as a small kernel
        try:
            return self._compiled(*args)
        finally:
            setattr(config, limit, before)

    def _stop_compiling(self, failure: Exception) -> None:
        self._works = False
        why = str(failure).strip().split("\n")[0]
        warnings.warn(f"Losses run uncompiled, slower but with the same results: {why}", stacklevel=4)


def _only_compiled(function: Callable[..., T]) -> Callable[..., T]:
    """Wrap a function to raise :class:`NotCompiledError` where it runs eagerly."""

    def run(*args: Any) -> T:
        if not torch.compiler.is_compiling():
            raise NotCompiledError
        return function(*args)

    return run


def chunks(logits: Tensor, compiled: bool = False, start: int = 0) -> Iterator[slice]:
    """Split the anchors into slices whose logits fit the CPU's cache; without anchors there is one empty slice.

    Args:
        logits: Class logits [A, L].
        compiled: Whether compiled code reads the chunks. It has no temporaries, so the chunks can be larger.
        start: The first anchor.
    """
    if compiled:
        size = 2**28  # each chunk has a fixed cost of 0.2 ms
    else:  # CPU: half a MiB of float32 per thread, so that the formula's temporaries stay in the cache
        size = 2**17 * min(torch.get_num_threads(), 8) if logits.device.type == "cpu" else 2**24
        if logits.numel() <= 2 * size:  # two chunks would take longer than one, for each operation has a fixed cost
            size *= 2
    step = size // max(1, logits.shape[1])
    step = max(ALIGNED, step - step % ALIGNED)
    return (slice(first, first + step) for first in range(start, max(1, len(logits)), step))


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


@contextmanager
def slopes_in_backward(wanted: bool = True) -> Iterator[None]:
    """Compute gradients in the backward pass, only for anchors whose weight is not 0, within this context.

    It is faster where few anchors count, such as the hardest negatives. On other devices than the CPU it has no effect:
    finding these anchors would synchronise the device. Nor has it in compiled code.

    Args:
        wanted: Whether to do so.
    """
    token = _late.set(wanted)
    try:
        yield
    finally:
        _late.reset(token)


def per_anchor(
    logits: Tensor, labels: Tensor, formula: Formula | SplitFormula, targets: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Apply a formula to all anchors, one chunk at a time.

    Values and gradients are computed together, in float32 or wider. The only tensor as large as the logits is their
    gradient. If values are multiplied by weights later, the backward pass applies the weights to the gradient. Infinite
    logits are replaced by very large ones; NaN stays NaN.

    Args:
        logits: Class logits [A, L].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        formula: Computes :class:`Rows` from logits [n, L], labels [n] and targets [n]; or three functions that do so.
        targets: Passed to the formula, sliced like the anchors [A].

    Returns:
        One value per anchor, 0 for ignored anchors, connected to the logits [A]; and the sum of the statistics.
    """
    if torch.compiler.is_compiling() or _plain.get():  # torch 2.4 cannot compile context variables: test them last
        whole = formula.whole if isinstance(formula, SplitFormula) else formula
        rows = whole(readable(logits), labels, targets)
        return rows.values.masked_fill(labels == IGNORED, 0.0), rows.statistic
    needs_grad = torch.is_grad_enabled() and logits.requires_grad
    result: tuple[Tensor, Tensor | None] = _PerAnchor.apply(logits, labels, targets, formula, needs_grad)
    return result


def readable(logits: Tensor) -> Tensor:
    """Copy logits for a formula: float32 or wider, with infinite logits replaced by very large ones."""
    return float32_or_wider(logits).clamp(-LARGEST_LOGIT, LARGEST_LOGIT)


@Chunked
def _rows(
    logits: Tensor, labels: Tensor, targets: Tensor | None, formula: Formula, with_slopes: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Compute values [n], slopes [n, L] or None, and statistic of a chunk."""
    rows = formula(readable(logits), labels, targets)
    return rows.values, rows.computed_slopes() if with_slopes else None, rows.statistic


@Chunked
def _scaled_slopes(
    logits: Tensor, labels: Tensor, targets: Tensor | None, slopes: Tensor, scale: Tensor, formula: Formula
) -> None:
    """Write the slopes of a chunk to ``slopes`` [n, L], multiplied by ``scale`` [n, 1]."""
    slopes.copy_(formula(readable(logits), labels, targets).computed_slopes() * scale)


class _PerAnchor(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        targets: Tensor | None,
        formula: Formula | SplitFormula,
        needs_grad: bool,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.compiled, ctx.own = _rows.compiles(logits), None
        if isinstance(formula, SplitFormula):
            ctx.own = formula.own(logits, labels, targets) if ctx.compiled else None
            formula = formula.rest if ctx.compiled else formula.whole
        ctx.formula = formula
        ctx.late = _late.get() and logits.device.type == "cpu" and not ctx.compiled
        # In three cases the backward pass computes the slopes. In half precision, stored slopes would be rounded before
        # the loss scale is applied. A compiled formula is faster than reading stored slopes. Few anchors may count.
        keep = needs_grad and logits.dtype.itemsize >= 4 and not ctx.compiled and not ctx.late

        values, slopes, statistic = [], None, None
        rows = _rows.over((logits, labels, targets), (formula, keep), ctx.compiled)
        for chunk, (value, slope, chunk_statistic) in rows:
            values.append(value)
            if slope is not None and len(slope) == len(logits):  # a single chunk is not copied
                slopes = slope
            elif slope is not None:
                slopes = torch.empty_like(logits) if slopes is None else slopes
                slopes[chunk] = slope
            if chunk_statistic is not None:
                statistic = chunk_statistic if statistic is None else statistic + chunk_statistic
        ignored = labels == IGNORED
        ctx.slopes, ctx.single_chunk = slopes, len(values) == 1
        ctx.save_for_backward(logits, labels, targets, ignored)
        total = torch.cat(values).masked_fill_(ignored, 0.0)
        if ctx.own is not None:
            total = ctx.own.add_to(total)
            statistic = statistic if ctx.own.statistic is None else statistic + ctx.own.statistic
        if statistic is not None:
            ctx.mark_non_differentiable(statistic)
        return total, statistic

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor, None, None, None, None]:
        logits, labels, targets, ignored = ctx.saved_tensors
        scale = grad.masked_fill(ignored, 0.0).unsqueeze(1)
        slopes, ctx.slopes = ctx.slopes, None
        if slopes is not None:
            # those of a single chunk can be a tensor of the formula, which must not change
            product = slopes * scale if ctx.single_chunk else slopes.mul_(scale)
            return product.to(logits.dtype), None, None, None, None
        rows = scale.squeeze(1).nonzero().squeeze(1) if ctx.late else None
        if rows is None or 2 * len(rows) > len(logits):
            gradient = _all_slopes(ctx, logits, labels, targets, scale)
            if ctx.own is not None:
                ctx.own.write_to(gradient, scale)
            return gradient, None, None, None, None
        few = (None if tensor is None else tensor[rows] for tensor in (logits, labels, targets, scale))
        return torch.zeros_like(logits).index_copy_(0, rows, _all_slopes(ctx, *few)), None, None, None, None


def _all_slopes(ctx: Any, logits: Any, labels: Any, targets: Any, scale: Any) -> Tensor:
    """Compute the slopes of anchors, multiplied by ``scale`` [n, L]."""
    slopes = torch.empty_like(logits)
    for _ in _scaled_slopes.over((logits, labels, targets, slopes, scale), (ctx.formula,), ctx.compiled):
        pass  # each chunk is written in place
    return slopes
