"""Histograms of the gradient norm, which gradient harmonized losses weigh elements by (arXiv:1811.05181)."""

from __future__ import annotations  # torch 2.4 compiles no function that is defined in another with X | None

from collections.abc import Callable

import torch
from torch import Tensor

from .fused.anchor_loss import IGNORED, readable
from .fused.chunking import Chunked
from .fused.sigmoid_terms import with_own

FUSED_BINS = 64
"""Sums that a compiler makes at once."""


@torch.no_grad()
def classification_histogram(
    logits: Tensor,
    labels: Tensor,
    bins: int = 30,
    class_weights: Tensor | None = None,
    levels: Tensor | None = None,
    num_levels: int = 1,
) -> Tensor:
    """Number of elements in each bin of the gradient norm ``|p - t|``, ignored anchors left out [bins].

    Args:
        logits: Scores before the sigmoid [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        bins: Equal parts of [0, 1].
        class_weights: Logits of a class with weight 0 are not counted [C]; apart for targets of 0 and 1 [2, C].
        levels: Pyramid level of each anchor, for a histogram of each level [A].
        num_levels: Number of levels.

    Returns:
        Counts [bins]; with ``levels`` one row for each level [num_levels, bins].

    Example:
        >>> classification_histogram(torch.tensor([[-4.0], [-4.0], [4.0]]), torch.tensor([-1, 0, 0]), bins=2)
        tensor([2., 1.], dtype=torch.float64)
    """
    logits = logits.detach()

    def of_chunk(histogram: Callable[..., Tensor], chunk: slice) -> Tensor:
        rows = None if levels is None else levels[chunk]
        return histogram(logits[chunk], labels[chunk], bins, class_weights, rows, num_levels)

    return torch.stack(list(_chunk_histogram.over(logits, of_chunk, _chunk_histogram.compiles(logits)))).sum(0)


@Chunked
def _chunk_histogram(
    logits: Tensor, labels: Tensor, bins: int, class_weights: Tensor | None, levels: Tensor | None, num_levels: int
) -> Tensor:
    p = torch.sigmoid(readable(logits))
    own = p.gather(1, labels.clamp(min=0).unsqueeze(1)).squeeze(1)
    counted: Tensor = (labels != IGNORED).unsqueeze(1)
    if class_weights is not None:
        heeds_negatives, heeds_positives = (class_weights != 0).expand(2, -1)
        heeded = heeds_negatives.expand_as(p).clone()
        counted = counted & with_own(heeded, labels, heeds_positives[labels.clamp(min=0)])
    norms = with_own(p, labels, 1 - own)
    return norm_histogram(norms, bins, counted, None if levels is None else levels.unsqueeze(1), num_levels)


def norm_histogram(
    norms: Tensor, bins: int, counted: Tensor | None = None, levels: Tensor | None = None, num_levels: int = 1
) -> Tensor:
    """Number of norms in each of equal parts of [0, 1] [bins].

    Args:
        norms: Of any shape.
        bins: Number of parts; the last is closed.
        counted: Which of them to count, of a shape that broadcasts; all by default.
        levels: Pyramid level of each norm, of a shape that broadcasts, for a histogram of each level.
        num_levels: Number of levels.

    Returns:
        Counts [bins]; with ``levels`` one row for each level [num_levels, bins].
    """
    if torch.compiler.is_compiling() and bins <= FUSED_BINS and levels is None:
        # one kernel with a sum for each bin, where adding to one place would queue
        places = norm_bins(norms, bins, torch.int32)
        inside = True if counted is None else counted
        return torch.stack([((places == place) & inside).sum() for place in range(bins)]).double()
    index = norm_bins(norms, bins, torch.int64)
    if levels is not None:
        index = index + bins * levels
    total = bins * num_levels
    if counted is not None:
        index.masked_fill_(~counted, total)
    index = index.flatten()
    # integers are exact in any order, and scatter_add_ needs no device synchronisation, as bincount does
    found = torch.zeros(total + 1, dtype=torch.int64, device=norms.device)
    found = found.scatter_add_(0, index, torch.ones_like(index))[:total].double()
    return found if levels is None else found.view(num_levels, bins)


def norm_bins(norms: Tensor, bins: int, dtype: torch.dtype) -> Tensor:
    """The part that each norm lies in; 1 lies in the last, NaN in the first."""
    return (norms * bins).to(dtype).clamp_(0, bins - 1)
