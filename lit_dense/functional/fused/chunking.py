"""Functions of chunks of the logits: compiled to one kernel on a GPU, as they are written everywhere else."""

from __future__ import annotations  # torch 2.4 compiles no function that is defined in another with X | None

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any, TypeVar

import torch
from torch import Tensor

WORTH_COMPILING = 2**20
"""Logits from which on a compiler's seconds come back: a few images of a small detector."""
COMPILED_AT_MOST = 64
"""Graphs of one function: for each loss with its settings, in training and in validation."""
ALIGNED = 16
"""Rows that a chunk is a multiple of, so that each begins where a kernel reads fastest."""

_forced: ContextVar[bool | None] = ContextVar("forced", default=None)
T = TypeVar("T")


@contextmanager
def compiled_formulas(wanted: bool = True) -> Iterator[None]:
    """Compile losses' formulas on any device, or on none, within this context.

    By default they are compiled for logits on a GPU that Triton writes kernels for, and there alone: on a processor
    chunks that fit its cache are as fast. Numbers agree to 1e-5 of their size. ``TORCH_COMPILE_DISABLE=1`` in the
    environment turns compiling off for a whole run.

    Args:
        wanted: Whether to compile.

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
    """PyTorch runs a function as it is although it was to be compiled: it was told to, or has compiled it too often."""


class Chunked:
    """A function of chunks of the logits, which is compiled when a device first gains from it.

    Where the compiler fails, a warning says so once and the function is called as it is from then on.

    Args:
        function: Gets tensors with a row for each anchor, and anything else.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._compiled: Callable[..., Any] | None = None
        self._works = True

    def compiles(self, logits: Tensor) -> bool:
        """Whether the function is to be compiled for these logits."""
        if not self._works or torch.compiler.is_compiling():
            return False
        forced = _forced.get()
        if forced is not None:
            return forced and logits.numel() > 0
        return logits.is_cuda and logits.numel() >= WORTH_COMPILING and find_spec("triton") is not None

    def over(self, logits: Tensor, call: Callable[[Callable[..., Any], slice], T], compiled: bool) -> Iterator[T]:
        """What comes of each chunk, one after another.

        Args:
            logits: Scores [A, L].
            call: Calls the function that it is given for the anchors of a slice.
            compiled: What :meth:`compiles` said. Backward passes have threads of their own, which would not know.
        """
        if torch.compiler.is_compiling():  # somebody else does, all of the model
            yield call(self._function, slice(None))
            return
        done, failure = 0, None
        if compiled and self._works:
            try:
                for chunk in chunks(logits, compiled=True):
                    yield call(self._call_compiled, chunk)
                    done = chunk.stop
                return
            except torch.cuda.OutOfMemoryError:
                raise
            except NotCompiledError:
                pass
            except Exception as error:  # a compiler raises anything; what is not its fault is raised again below
                failure = error
        for chunk in chunks(logits, start=done):
            result = call(self._function, chunk)
            if failure is not None:
                self._do_without(failure)
                failure = None
            yield result

    def _call_compiled(self, *args: Any) -> Any:
        if self._compiled is None:
            self._compiled = torch.compile(_only_compiled(self._function))
        for arg in args:
            if isinstance(arg, Tensor):  # else images of another size would be compiled for anew
                torch._dynamo.maybe_mark_dynamic(arg, 0)
        limit = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"  # < 2.6
        with torch._dynamo.config.patch({limit: COMPILED_AT_MOST}):
            return self._compiled(*args)

    def _do_without(self, failure: Exception) -> None:
        self._works = False
        why = str(failure).strip().split("\n")[0]
        warnings.warn(f"Losses run without a compiler, slower but with the same numbers: {why}", stacklevel=4)


def _only_compiled(function: Callable[..., T]) -> Callable[..., T]:
    def run(*args: Any) -> T:
        if not torch.compiler.is_compiling():
            raise NotCompiledError
        return function(*args)

    return run


def chunks(logits: Tensor, compiled: bool = False, start: int = 0) -> Iterator[slice]:
    """Slices of the anchors such that a chunk fits a processor's cache; at least one, empty where there are none.

    Args:
        logits: Scores [A, L].
        compiled: Whether what reads the chunks keeps nothing but its results, so that they may be large.
        start: The first anchor.
    """
    if compiled:
        elements = 2**26
    else:  # CPU: half a MiB of float32 for each thread, so that the formula's temporaries stay in its cache
        elements = 2**17 * min(torch.get_num_threads(), 8) if logits.device.type == "cpu" else 2**24
    step = elements // max(1, logits.shape[1])
    step = max(ALIGNED, step - step % ALIGNED)
    return (slice(first, first + step) for first in range(start, max(1, len(logits)), step))
