"""Ranking of the logits of a batch, for losses such as AP loss (https://arxiv.org/abs/1904.06373).

The elements are single logits. Positives are the logits of the ground-truth classes. All other logits of anchors that
are not ignored are negatives. ``H(d)``, a step of width ``2 * delta``, says how much a logit ranks above another.

``H`` is linear between its corners. The sum over all negatives is therefore exact from two numbers for each interval
between corners: the count and the sum of the negatives inside. Memory grows with the number of positives only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .fused.anchor_loss import IGNORED, readable

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_never_compiled: Callable[[FunctionT], FunctionT] = torch.compiler.disable
"""Excludes a function from ``torch.compile``, which cannot trace sums over processes in a backward pass."""
ELEMENTS_AT_ONCE = 2**20
"""Logits in a chunk: 4 MiB in float32; about six such arrays exist at a time."""
PAIRS_AT_ONCE = 2**20
"""Pairs of positives in a chunk."""


class Sums(Protocol):
    """Sums over processes: the methods of ``Reduce`` that ranking uses."""

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over processes."""

    def gather_with_own(self, tensor: Tensor) -> tuple[Tensor, slice]:
        """Return the rows of all processes, and the slice of this one."""


class Errors(NamedTuple):
    """Ranking errors of P positives and how they are shared out, float64.

    Args:
        values: Error of each positive, the value of the loss [P].
        pulls: Gradient of a positive's logit with the sign changed, if its error counts 1 [P].
        spreads: Gradient of a negative's logit for each unit of its ``H`` above the positive [P].
        ranks: Rank of each positive among all elements [P].
    """

    values: Tensor
    pulls: Tensor
    spreads: Tensor
    ranks: Tensor


@dataclass(frozen=True)
class RankingMethod(ABC):
    """A ranking loss: errors of the positives, and what it pushes down among the positives.

    Args:
        delta: Half the width of the step in logits.
    """

    delta: float

    @abstractmethod
    def errors(self, logits: Tensor, qualities: Tensor, above: Tensor) -> Errors:
        """Compute the errors.

        Args:
            logits: Logits of the positives, float64 [P].
            qualities: Quality of the positives, such as their IoU, float64 [P].
            above: Number of negatives that rank above each positive, by ``H`` [P].
        """

    def pushes(self, logits: Tensor, qualities: Tensor, upstream: Tensor) -> Tensor | None:
        """Compute the gradient of the positives that rank above better ones; by default there is none [P].

        Args:
            logits: Logits of the positives, float64 [P].
            qualities: Quality of the positives, float64 [P].
            upstream: Weight of each positive's error [P].
        """
        return None


def step(difference: Tensor, delta: float) -> Tensor:
    """Compute ``H(d)``, 0 below ``-delta``, 1 above ``delta``, linear between; for delta 0, 1 from 0 on (AP loss).

    Paper: https://arxiv.org/abs/1904.06373.

    Args:
        difference: Difference of logits of any shape.
        delta: Half the width of the step.
    """
    if delta == 0:
        return (difference >= 0).to(difference.dtype)
    return (difference / (2 * delta) + 0.5).clamp(0, 1)


def rows_of_pairs(number: int) -> Iterator[slice]:
    """Split P positives into slices, so that a slice has a bounded number of pairs with all positives."""
    size = max(1, PAIRS_AT_ONCE // max(1, number))
    return (slice(start, start + size) for start in range(0, number, size))


class _Corners(NamedTuple):
    """Corners of the steps of P positives in ascending order.

    Args:
        places: Position of the corners, float64 [2 P].
        low: Interval in which the step of each positive begins to rise [P].
        high: Interval from which it is 1 [P].
    """

    places: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, logits: Tensor, delta: float) -> _Corners:
        """Sort the corners of the steps at these logits."""
        low, high = logits - delta, logits + delta
        places = torch.cat([low, high]).sort().values
        return cls(places, torch.searchsorted(places, low) + 1, torch.searchsorted(places, high) + 1)

    def intervals(self, x: Tensor) -> Tensor:
        """Return the interval of each logit: the number of corners up to it [N]."""
        return torch.searchsorted(self.places.to(x.dtype), x, right=True)


def _negatives(logits: Tensor, labels: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Iterate over chunks of anchors: their rows, their logits [n, C], and whether these are negatives [n, C]."""
    columns = torch.arange(logits.shape[1], device=logits.device)
    size = max(1, ELEMENTS_AT_ONCE // max(1, logits.shape[1]))
    for start in range(0, len(logits), size):
        rows = slice(start, start + size)
        own = labels[rows].unsqueeze(1)
        yield rows, readable(logits[rows]), (columns != own) & (own != IGNORED)


def _count_above(logits: Tensor, labels: Tensor, positives: Tensor, delta: float, reduce: Sums) -> Tensor:
    """Count the negatives of all processes above each positive, by ``H`` [P]."""
    corners = _Corners.of(positives, delta)
    counts = positives.new_zeros(2, len(corners.places) + 2)
    for _, x, negative in _negatives(logits, labels):
        interval = torch.where(negative, corners.intervals(x), 0).flatten()  # those in interval 0 are above none
        counts[0].scatter_add_(0, interval, torch.ones_like(interval, dtype=counts.dtype))
        counts[1].scatter_add_(0, interval, x.flatten().to(counts.dtype))
    number, total = reduce.sum(counts.flip(1).cumsum(1).flip(1)).unbind()  # of all higher intervals
    inside = number[corners.low] - number[corners.high]
    above = number[corners.high]
    if delta == 0:
        return above
    rising = total[corners.low] - total[corners.high] - positives * inside
    return above + rising / (2 * delta) + 0.5 * inside


class _Lines(NamedTuple):
    """A function that is linear in each interval between corners: ``start + slope * (x - place)``.

    Args:
        start: Value at the lower end of each interval [2 P + 1].
        slope: Slope in each interval [2 P + 1].
        place: Lower end of each interval [2 P + 1].
    """

    start: Tensor
    slope: Tensor
    place: Tensor

    @classmethod
    def of(cls, corners: _Corners, weights: Tensor, delta: float) -> _Lines:
        """Add up the steps of all positives, each with a weight [P]."""
        places = corners.places
        zeros = weights.new_zeros(len(places) + 1)
        place = torch.cat([places[:1], places])
        if delta == 0:
            return cls(zeros.index_add(0, corners.high, weights).cumsum(0), zeros, place)
        rise = weights / (2 * delta)
        slope = zeros.index_add(0, corners.low, rise).index_add(0, corners.high, -rise).cumsum(0)
        start = torch.cat([zeros[:1], (slope[:-1] * place.diff()).cumsum(0)])
        return cls(start, slope, place)

    def at(self, x: Tensor, interval: Tensor) -> Tensor:
        """Evaluate the function at logits of known intervals."""
        start, slope, place = (table.to(x.dtype)[interval] for table in self)
        return start + slope * (x - place)


class _Ranked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, rows: Tensor, qualities: Tensor, method: RankingMethod, reduce: Sums
    ) -> tuple[Tensor, Tensor]:
        own = readable(logits[rows, labels[rows]]).double()
        gathered, part = reduce.gather_with_own(torch.stack([own, qualities.double()], 1))
        positives, all_qualities = gathered.unbind(1)
        ctx.method, ctx.reduce, ctx.part = method, reduce, part
        values = torch.zeros(len(logits), dtype=readable(logits[:0]).dtype, device=logits.device)
        if not len(positives):
            ctx.save_for_backward(logits, labels, rows)
            return values, values.new_zeros(0)
        above = _count_above(logits, labels, positives, method.delta, reduce)
        errors = method.errors(positives, all_qualities, above)
        ctx.save_for_backward(logits, labels, rows, positives, all_qualities, errors.pulls, errors.spreads)
        ranks = errors.ranks[part]
        ctx.mark_non_differentiable(ranks)
        return values.index_put_((rows,), errors.values[part].to(values.dtype)), ranks

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        logits, labels, rows, *saved = ctx.saved_tensors
        if not saved:
            return torch.zeros_like(logits), None, None, None, None, None
        positives, qualities, pulls, spreads = saved
        upstream = torch.zeros_like(positives)
        upstream[ctx.part] = grad[rows].double()
        upstream = ctx.reduce.sum(upstream)
        own = -upstream * pulls
        if (pushes := ctx.method.pushes(positives, qualities, upstream)) is not None:
            own = own + pushes
        corners = _Corners.of(positives, ctx.method.delta)
        lines = _Lines.of(corners, upstream * spreads, ctx.method.delta)
        slopes = torch.empty_like(logits)
        for chunk, x, negative in _negatives(logits, labels):
            slopes[chunk] = torch.where(negative, lines.at(x, corners.intervals(x)), 0.0).to(slopes.dtype)
        slopes[rows, labels[rows]] = own[ctx.part].to(slopes.dtype)
        return slopes, None, None, None, None, None


@_never_compiled
def ranking_errors(
    logits: Tensor, labels: Tensor, qualities: Tensor, method: RankingMethod, reduce: Sums, rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Compute the ranking error of each positive, with an error-driven gradient (https://arxiv.org/abs/1904.06373).

    The gradient is no derivative of the values. Its sum over all logits is 0: a positive is raised by as much as the
    negatives above it are lowered. It is linear in the weights of the errors.

    Args:
        logits: Class logits [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        qualities: Quality of each positive, in the order of anchors [P].
        method: The ranking loss.
        reduce: Sums over processes. Positives are gathered, and negatives are counted over all processes.
        rows: Indices of the positives [P]; by default they are looked up.

    Returns:
        Error of each anchor, 0 for all but positives, connected to the logits [A]; and the ranks of the positives,
        float64 [P].
    """
    positives = (labels >= 0).nonzero().squeeze(1) if rows is None else rows
    result: tuple[Tensor, Tensor] = _Ranked.apply(logits, labels, positives, qualities.detach(), method, reduce)
    return result


class OneProcess:
    """Sums of a single process: everything stays as it is (no paper)."""

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the tensor."""
        return tensor

    def gather_with_own(self, tensor: Tensor) -> tuple[Tensor, slice]:
        """Return the rows and the slice of all of them."""
        return tensor, slice(None)
