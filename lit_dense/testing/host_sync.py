"""Detection of operations that synchronise with a device, on the CPU."""

import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ..functional.fused.sigmoid_terms import rows_as_on_a_gpu
from .check_runner import place

READS = frozenset(
    {
        "_local_scalar_dense",
        "bincount",
        "equal",
        "masked_select",
        "nonzero",
        "unique_consecutive",
        "unique_dim",
        "_unique",
        "_unique2",
    }
)
METHODS = frozenset({torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu, torch.Tensor.new_tensor})
FROM_NUMBERS = frozenset({torch.tensor, torch.as_tensor})


class _Operations(TorchDispatchMode):
    """Records operations that read values on the host, or whose output shape depends on values."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = found

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        by_mask = name.startswith(("index", "_index")) and any(_is_mask(i) for i in _listed(args))
        by_counts = name == "repeat_interleave" and kwargs.get("output_size") is None
        if name in READS or by_mask or by_counts:
            self.found.append(f"{name}{' with a mask' if by_mask else ''} at {place(traceback.extract_stack())}")
        return func(*args, **kwargs)


class _Methods(TorchFunctionMode):
    """Records copies to and from the host, which are not operations on the CPU."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        numbers = kwargs.get("data", args[0] if args else None)
        of_numbers = func in FROM_NUMBERS and kwargs.get("device") is not None and not isinstance(numbers, Tensor)
        if func in METHODS or of_numbers:
            self.found.append(f"{func.__name__} at {place(traceback.extract_stack())}")
        return func(*args, **kwargs)


def host_reads(function: Callable[[], object]) -> list[str]:
    """Return the operations of a function that would synchronise with a device, with their source lines."""
    found: list[str] = []
    with rows_as_on_a_gpu(), _Methods(found), _Operations(found):
        function()
    return found


def _listed(args: Sequence[Any]) -> list[Any]:
    """Return the indices of ``index`` and ``index_put``, which are passed as a list."""
    return [i for arg in args if isinstance(arg, (list, tuple)) for i in arg]


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)
