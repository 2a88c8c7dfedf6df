"""Histograms of the gradient norm, for gradient harmonized losses, GHM (https://arxiv.org/abs/1811.05181)."""

from __future__ import annotations  # torch 2.4 cannot compile nested functions annotated with X | None

import torch
from torch import Tensor

from .fused.anchor_loss import IGNORED, Chunked
from .fused.sigmoid_terms import OwnLogits, may_read_numbers, own_mask
from .precision import float32_or_wider
from .unknown_classes import is_hidden

FUSED_BINS = 64
"""Largest number of bins that are counted in one compiled kernel."""
COUNT_BITS = 15
"""Bits of a count in a compiled kernel, in which an int32 has the counts of two bins."""
ROWS_OF_BLOCK = 64
"""Most rows that are counted in one number. A power of two; with fewer, summing over threads takes more time."""
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
    positives: Tensor | None = None,
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
        positives: Indices of the anchors with a class, in ascending order; by default they are searched [P].

    Returns:
        Counts [bins]; with ``levels`` one row per level [num_levels, bins].

    Example:
        >>> classification_histogram(torch.tensor([[-4.0], [-4.0], [4.0]]), torch.tensor([-1, 0, 0]), bins=2)
        tensor([2., 1.], dtype=torch.float64)
    """
    logits = logits.detach()
    compiled = _chunk_histogram.compiles(logits)
    if compiled and levels is None and bins <= FUSED_BINS and logits.shape[1] < 2**COUNT_BITS:
        negatives = _count_negatives(logits, labels, bins, class_weights, has_unknown)
        return negatives + _count_own(logits, labels, bins, class_weights, has_unknown, positives)
    rows, args = (logits, labels, levels), (bins, class_weights, num_levels, has_unknown)
    counts = [found for _, found in _chunk_histogram.over(rows, args, compiled)]
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
    return norm_histogram(norms, bins, counted, None if levels is None else levels.unsqueeze(1), num_levels)


def _count_negatives(
    logits: Tensor, labels: Tensor, bins: int, class_weights: Tensor | None, has_unknown: bool
) -> Tensor:
    """Count the bins of all logits but those of the positives' classes, in compiled blocks of rows, float64 [bins]."""
    rows_of_block = ROWS_OF_BLOCK
    while rows_of_block * logits.shape[1] >= 2**COUNT_BITS:  # all logits of a block can be in one bin
        rows_of_block //= 2
    end = len(logits) - len(logits) % rows_of_block
    counts = torch.zeros(bins, dtype=torch.float64, device=logits.device)
    for part, compiled in ((slice(end), True), (slice(end, None), False)):
        args = (bins, class_weights, has_unknown, rows_of_block)
        if len(logits[part]):
            for _, found in _chunk_negatives.over((logits[part], labels[part]), args, compiled):
                counts += _sum_of_blocks(found, bins) if found.dtype == torch.int32 else found
    return counts


@Chunked
def _chunk_negatives(
    logits: Tensor, labels: Tensor, bins: int, class_weights: Tensor | None, has_unknown: bool, rows_of_block: int
) -> Tensor:
    """Count the bins of a chunk [bins], or in compiled code of each of its blocks, int32 [G, n / rows_of_block]."""
    p = torch.sigmoid(float32_or_wider(logits))
    counted = (labels != IGNORED).unsqueeze(1) & ~own_mask(labels, logits.shape[1])
    if has_unknown:
        counted = counted & ~is_hidden(logits)
    if class_weights is not None:
        counted = counted & (class_weights != 0).expand(2, -1)[0]
    if torch.compiler.is_compiling():
        return _block_counts(norm_bins(p, bins, torch.int32), counted, bins, rows_of_block)
    return norm_histogram(p, bins, counted)


def _block_counts(index: Tensor, counted: Tensor, bins: int, rows_of_block: int) -> Tensor:
    """Count the bins of blocks of rows in one compiled kernel, two in each number, int32 [G, n / rows_of_block].

    On a GPU, ``scatter_add_`` takes several times as long, because its atomic additions wait for each other. So does a
    kernel that has one sum of each bin in its registers, or sums for each row.

    Args:
        index: Bin of each logit, int32 [n, C].
        counted: Mask of the logits to count, broadcastable to ``index``.
        bins: Number of bins.
        rows_of_block: Rows of a block, of which ``n`` is a multiple.
    """
    one = torch.where(counted, (index & 1) * (2**COUNT_BITS - 1) + 1, 0)  # 1, or 1 in the upper count
    pair = index >> 1
    pairs = [torch.where(pair == number, one, 0) for number in range(-(-bins // 2))]
    return torch.stack([p.view(-1, rows_of_block * index.shape[1]).sum(1, dtype=torch.int32) for p in pairs])


def _sum_of_blocks(block_counts: Tensor, bins: int) -> Tensor:
    """Sum the results of :func:`_block_counts` over the blocks, float64 [bins]."""
    each = [(block_counts & (2**COUNT_BITS - 1)).sum(1), (block_counts >> COUNT_BITS).sum(1)]
    return torch.stack(each, 1).flatten()[:bins].double()


def _count_own(
    logits: Tensor,
    labels: Tensor,
    bins: int,
    class_weights: Tensor | None,
    has_unknown: bool,
    positives: Tensor | None,
) -> Tensor:
    """Count the bins of the logits of the positives' classes, float64 [bins]."""
    own = OwnLogits(labels, rows=positives)
    x = own.take(logits)
    counted = (own.labels >= 0) & ~is_hidden(x) if has_unknown else own.labels >= 0
    if class_weights is not None:
        counted = counted & (class_weights != 0).expand(2, -1)[1][own.column]
    norms = 1 - torch.sigmoid(float32_or_wider(x))
    index = torch.where(counted, norm_bins(norms, bins, torch.int32), -1)
    return (index == torch.arange(bins, device=index.device).unsqueeze(1)).sum(1).double()


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
