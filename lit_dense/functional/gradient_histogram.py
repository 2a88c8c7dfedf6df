"""Histograms of the gradient norm, for gradient harmonized losses, GHM (https://arxiv.org/abs/1811.05181)."""

from __future__ import annotations  # torch 2.4 cannot compile nested functions annotated with X | None

import torch
from torch import Tensor

from .fused.anchor_loss import IGNORED, Chunked
from .fused.sigmoid_terms import OwnLogits, may_read_numbers
from .precision import float32_or_wider
from .unknown_classes import is_hidden

FUSED_BINS = 64
"""Largest number of bins that are counted in one compiled kernel."""
COUNTERS = 4
"""Number of counters of each bin, for neighbouring columns; on a CPU three times as fast as one, and 8 as 4."""


@torch.no_grad()
def classification_histogram(
    logits: Tensor,
    labels: Tensor,
    bins: int = 30,
    class_weights: Tensor | None = None,
    levels: Tensor | None = None,
    num_levels: int = 1,
    has_unknown: bool = False,
) -> Tensor:
    """Count the logits in each bin of the gradient norm ``|p - t|``, excluding ignored anchors.

    Args:
        logits: Class logits [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        bins: Number of equal bins of [0, 1].
        class_weights: Weight of each class [C], or of its negative and positive logits [2, C]. Logits with weight 0 are
            not counted; None counts all.
        levels: Pyramid level of each anchor, to compute one histogram per level [A].
        num_levels: Number of levels.
        has_unknown: Whether some logits are hidden, because the class is unknown in the image; they are not counted.

    Returns:
        Counts [bins]; with ``levels`` one row per level [num_levels, bins].

    Example:
        >>> classification_histogram(torch.tensor([[-4.0], [-4.0], [4.0]]), torch.tensor([-1, 0, 0]), bins=2)
        tensor([2., 1.], dtype=torch.float64)
    """
    logits = logits.detach()
    rows, args = (logits, labels, levels), (bins, class_weights, num_levels, has_unknown)
    chunks = [found for _, found in _chunk_histogram.over(rows, args, _chunk_histogram.compiles(logits))]
    counts = [_sum_of_rows(found, bins, logits.shape[1]) if found.dtype == torch.int32 else found for found in chunks]
    return torch.stack(counts).sum(0)


@Chunked
def _chunk_histogram(
    logits: Tensor,
    labels: Tensor,
    levels: Tensor | None,
    bins: int,
    class_weights: Tensor | None,
    num_levels: int,
    has_unknown: bool,
) -> Tensor:
    p = torch.sigmoid(float32_or_wider(logits))
    own = OwnLogits(labels)
    counted: Tensor = (labels != IGNORED).unsqueeze(1)
    if has_unknown:
        counted = counted & ~is_hidden(logits)
    if class_weights is not None:
        uses_negatives, uses_positives = (class_weights != 0).expand(2, -1)
        used = uses_negatives.expand_as(p).clone()
        counted = counted & own.replace(used, uses_positives[own.column])
    norms = own.replace(p, 1 - own.take(p))
    if torch.compiler.is_compiling() and bins <= FUSED_BINS and levels is None:
        return _row_counts(norm_bins(norms, bins, torch.int32), counted, bins)
    return norm_histogram(norms, bins, counted, None if levels is None else levels.unsqueeze(1), num_levels)


def _row_counts(index: Tensor, counted: Tensor, bins: int) -> Tensor:
    """Count the bins of each row, in one compiled kernel; a number has the counts of several bins, int32 [G, n].

    On a GPU, ``scatter_add_`` takes several times as long, because its atomic additions wait for each other. So does a
    kernel that has sums over all rows, one of each bin, in its registers.

    Args:
        index: Bin of each logit, int32 [n, C].
        counted: Mask of the logits to count, broadcastable to ``index``.
        bins: Number of bins.
    """
    fields, bits = _fields(index.shape[1])
    one = torch.bitwise_left_shift(torch.ones_like(index), bits * (index % fields))
    group = torch.where(counted, index // fields, -1)
    groups = range(-(-bins // fields))
    return torch.stack([torch.where(group == number, one, 0).sum(1, dtype=torch.int32) for number in groups])


def _sum_of_rows(row_counts: Tensor, bins: int, columns: int) -> Tensor:
    """Sum the results of :func:`_row_counts` over the rows, float64 [bins]."""
    fields, bits = _fields(columns)
    each = [((row_counts >> bits * field) & (2**bits - 1)).sum(1) for field in range(fields)]
    return torch.stack(each, 1).flatten()[:bins].double()


def _fields(columns: int) -> tuple[int, int]:
    """Return how many counts one int32 has, and their bits: each can be as large as the number of columns."""
    fields = 3 if columns < 2**10 else 2 if columns < 2**15 else 1
    return fields, 30 // fields


def norm_histogram(
    norms: Tensor, bins: int, counted: Tensor | None = None, levels: Tensor | None = None, num_levels: int = 1
) -> Tensor:
    """Count the norms in each of ``bins`` equal bins of [0, 1].

    Args:
        norms: Gradient norms of any shape.
        bins: Number of bins; the last includes 1.
        counted: Mask of the norms to count, broadcastable to ``norms``; all by default.
        levels: Pyramid level of each norm, broadcastable to ``norms``, to compute one histogram per level.
        num_levels: Number of levels.

    Returns:
        Counts [bins]; with ``levels`` one row per level [num_levels, bins].
    """
    index = norm_bins(norms, bins, torch.int32)
    if levels is not None:
        index = index + bins * levels
    total = bins * num_levels
    if counted is not None:  # others are in a bin of their own, after the last
        index.clamp_(min=total * (~counted).to(index.dtype))
    counts = _count_integers(index, total + 1)[:total].double()
    return counts if levels is None else counts.view(num_levels, bins)


def _count_integers(index: Tensor, size: int) -> Tensor:
    """Count each of the integers 0 to ``size - 1`` in a tensor [..., n] -> [size]; may modify the tensor."""
    # Most norms are in one bin, and additions to one counter wait for each other. Neighbours have different counters.
    index += size * (torch.arange(index.shape[-1], dtype=index.dtype, device=index.device) % COUNTERS)
    index, sizes = index.flatten(), size * COUNTERS
    if may_read_numbers(index):
        counts = torch.bincount(index, minlength=sizes)
    else:  # bincount synchronises the device
        ones = torch.ones((), dtype=torch.int64, device=index.device).expand_as(index)
        # Integer sums are exact in any order.
        counts = torch.zeros(sizes, dtype=torch.int64, device=index.device).scatter_add_(0, index.long(), ones)
    return counts.view(COUNTERS, size).sum(0)


def norm_bins(norms: Tensor, bins: int, dtype: torch.dtype) -> Tensor:
    """Return the bin of each norm; 1 is in the last bin, NaN in the first."""
    return (norms * bins).to(dtype).clamp_(0, bins - 1)
