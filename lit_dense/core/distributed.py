"""Sums over the processes of a data-parallel run: the only calls of torch.distributed outside ``testing``.

Losses, weighters and normalizers get a :class:`Reduce` with their samples and do not depend on the number of processes.
Each method makes a fixed number of collectives, even for an empty tensor, so that no process waits for ever.
With one process each method is the identity.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import FunctionCtx


class _SumWithGrad(torch.autograd.Function):
    """All-reduce with an all-reduce as backward: the loss of every process depends on the terms of all processes."""

    @staticmethod
    def forward(ctx: FunctionCtx, tensor: Tensor, reduce: "Reduce") -> Tensor:
        ctx.reduce = reduce  # type: ignore[attr-defined]
        return reduce.sum(tensor)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.reduce.sum(grad), None  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Reduce:
    """Sums and gathers over the processes of a group.

    Args:
        group: The process group; by default all processes.
        enabled: False makes every method the identity. Evaluation needs that: processes may have different numbers
            of batches, and a collective would then wait for ever.

    Example:
        >>> Reduce().sum(torch.tensor([1.0, 2.0]))  # one process: nothing to add
        tensor([1., 2.])
    """

    group: Any = None
    enabled: bool = True

    @property
    def world_size(self) -> int:
        """Number of processes; 1 if sums are not enabled."""
        if not (self.enabled and dist.is_available() and dist.is_initialized()):
            return 1
        return dist.get_world_size(self.group)

    @property
    def rank(self) -> int:
        """Index of this process in the group."""
        return dist.get_rank(self.group) if self.world_size > 1 else 0

    def sum_number(self, number: float, device: torch.device) -> Tensor:
        """Sum a number over processes, without a device synchronisation: the device writes it. One collective."""
        return self.sum(torch.full((), float(number), device=device))

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over processes, detached. All processes pass the same shape. One collective."""
        total = tensor.detach().clone()
        if self.world_size > 1:
            dist.all_reduce(total, group=self.group)
        return total

    def sum_with_grad(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over processes; gradients flow back to every process. One collective in each direction.

        Every process must use the result in its loss, even if it multiplies it by zero: the other processes wait for
        ever for a process that skips the backward pass.
        """
        if self.world_size == 1:
            return tensor
        total: Tensor = _SumWithGrad.apply(tensor, self)
        return total

    def gather(self, tensor: Tensor) -> Tensor:
        """Return the rows of all processes, in the order of processes, detached. Two collectives.

        Args:
            tensor: Rows [N, ...]. N may differ between processes and may be 0. The other sizes and the dtype are equal.
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
        """Return the rows of all processes and the slice of this one. Four collectives; see :meth:`gather`."""
        if self.world_size == 1:
            return tensor.detach(), slice(None)
        counts = self.gather(torch.tensor([len(tensor)], device=tensor.device)).tolist()
        start = sum(counts[: self.rank])
        return self.gather(tensor), slice(start, start + len(tensor))

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Return the tensor of the first process. All pass the same shape and dtype. One collective."""
        tensor = tensor.detach().clone()
        if self.world_size > 1:
            first = dist.get_global_rank(self.group, 0) if self.group is not None else 0
            dist.broadcast(tensor, src=first, group=self.group)
        return tensor

    def gather_objects(self, item: object) -> list[Any]:
        """Return one object of each process, in the order of processes; for results that are written to files."""
        if self.world_size == 1:
            return [item]
        items: list[Any] = [None] * self.world_size
        dist.all_gather_object(items, item, group=self.group)
        return items
