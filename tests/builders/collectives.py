"""What processes do together, found by name."""

import contextlib
from collections.abc import Iterator
from unittest import mock

import torch.distributed as dist

COLLECTIVES = {"barrier", "broadcast", "gather", "scatter", "reduce", "broadcast_object_list", "gather_object"}
COLLECTIVES |= {name for name in dir(dist) if name.startswith(("all_", "reduce_scatter", "scatter_object"))}


@contextlib.contextmanager
def counted_collectives() -> Iterator[list[mock.Mock]]:
    """The calls of every collective, which are made."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(mock.patch.object(dist, name, wraps=getattr(dist, name))) for name in COLLECTIVES]


@contextlib.contextmanager
def no_collectives() -> Iterator[None]:
    """Makes every collective an error: one that is made by one process alone would wait for ever."""
    with contextlib.ExitStack() as stack:
        for name in COLLECTIVES:
            error = AssertionError(f"torch.distributed.{name} is called")
            stack.enter_context(mock.patch.object(dist, name, side_effect=error))
        yield
