"""Sums over the processes of a data-parallel run: all that calls torch.distributed, but for ``testing``.

Losses, weighters and normalizers get a :class:`Reduce` with their samples and never ask how many processes there are.
Each method is a fixed number of collectives whatever a process holds, an empty tensor included, so that processes
cannot get out of step; in one process each is the identity.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx


class _SumWithGrad(torch.autograd.Function):
    """All-reduce whose backward is an all-reduce: every process's loss depends on every process's term."""

    @staticmethod
    def forward(ctx: FunctionCtx, tensor: Tensor, reduce: "Reduce") -> Tensor:
        ctx.reduce = reduce  # type: ignore[attr-defined]
        return reduce.sum(tensor)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.reduce.sum(grad), None  # type: ignore[attr-defined]


class Reduce:
    """Sums and gathers over the processes of a group.

    Args:
        group: The process group, None for all processes.
        enabled: False makes every method the identity, as in evaluation, where processes may hold different numbers
            of batches and a collective would wait for ever.

    Example:
        >>> Reduce().sum(torch.tensor([1.0, 2.0]))  # one process: nothing to add
        tensor([1., 2.])
    """

    def __init__(self, group: Any = None, enabled: bool = True) -> None:
        self.group = group
        self.enabled = enabled

    @property
    def world_size(self) -> int:
        """The number of processes whose values are summed."""
        if not (self.enabled and dist.is_available() and dist.is_initialized()):
            return 1
        return dist.get_world_size(self.group)

    @property
    def rank(self) -> int:
        """The index of this process in the group."""
        return dist.get_rank(self.group) if self.world_size > 1 else 0

    def sum_number(self, number: float, device: torch.device) -> Tensor:
        """The sum over processes of a number, written by the device: the host would wait for a copy. One collective."""
        return self.sum(torch.full((), float(number), device=device))

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over processes of a tensor of equal shape everywhere, detached. One collective."""
        total = tensor.detach().clone()
        if self.world_size > 1:
            dist.all_reduce(total, group=self.group)
        return total

    def sum_with_grad(self, tensor: Tensor) -> Tensor:
        """The sum over processes through which gradients flow back to every process. One collective each way.

        Every process must use the result in its loss, if only multiplied by zero: a process whose backward pass does
        not come through here leaves the others waiting.
        """
        if self.world_size == 1:
            return tensor
        total: Tensor = _SumWithGrad.apply(tensor, self)
        return total

    def gather(self, tensor: Tensor) -> Tensor:
        """The rows of all processes, in the order of processes, detached. Two collectives.

        Args:
            tensor: Rows [N, ...]; N may differ between processes and be 0, the other sizes and the type may not.
        """
        tensor = tensor.detach()
        if self.world_size == 1:
            return tensor
        count = torch.tensor([len(tensor)], device=tensor.device)
        counts = [torch.empty_like(count) for _ in range(self.world_size)]
        dist.all_gather(counts, count, group=self.group)
        sizes = torch.cat(counts).tolist()
        padded = tensor.new_zeros((max(sizes), *tensor.shape[1:]))
        padded[: len(tensor)] = tensor
        rows = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(rows, padded, group=self.group)
        return torch.cat([r[:n] for r, n in zip(rows, sizes, strict=True)])

    def gather_with_own(self, tensor: Tensor) -> tuple[Tensor, slice]:
        """The rows of all processes, and which of them are this one's. Four collectives; see :meth:`gather`."""
        if self.world_size == 1:
            return tensor.detach(), slice(None)
        counts = self.gather(torch.tensor([len(tensor)], device=tensor.device)).tolist()
        start = sum(counts[: self.rank])
        return self.gather(tensor), slice(start, start + len(tensor))

    def broadcast(self, tensor: Tensor) -> Tensor:
        """The tensor of the first process; the others pass one of the same shape and type. One collective."""
        tensor = tensor.detach().clone()
        if self.world_size > 1:
            first = dist.get_global_rank(self.group, 0) if self.group is not None else 0
            dist.broadcast(tensor, src=first, group=self.group)
        return tensor

    def gather_objects(self, item: object) -> list[Any]:
        """What each process holds, in the order of processes: for results that are written, not trained on."""
        if self.world_size == 1:
            return [item]
        items: list[Any] = [None] * self.world_size
        dist.all_gather_object(items, item, group=self.group)
        return items
