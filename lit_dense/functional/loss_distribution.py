"""Distribution of a loss over gradient norms, as in GHM (arXiv:1811.05181), and over anchors (arXiv:1708.02002)."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .fused.anchor_loss import IGNORED, chunks, readable
from .gradient_histogram import norm_bins
from .softplus import softplus

Array = npt.NDArray[Any]

NORM_BINS = 30
"""Number of equal bins of the gradient norm's range, as in GHM."""
VALUES_PER_DECADE, SMALLEST_VALUE, VALUE_BINS = 40, -18, 24 * 40
"""Bins per decade, exponent of the first bin, and number of bins of a histogram of losses.

The bins reach from 1e-18 to 1e6; the values of neighbouring bins differ by 6 %.
"""
LARGEST_HALF = 15
"""Largest exponent of two in half precision."""


class NormDistribution(NamedTuple):
    """Histograms over the gradient norm.

    Args:
        counts: Number of logits whose target is 1 and of logits whose target is 0 [2, bins].
        before: Sum of the absolute gradients of plain cross-entropy, which are the norms themselves [bins].
        after: Sum of the absolute values of the given gradients [bins].
        entropies: Plain cross-entropy of each anchor, 0 for ignored anchors [A].
    """

    counts: Tensor
    before: Tensor
    after: Tensor
    entropies: Tensor


def logit_gradients(logits: Tensor, values: Tensor, weights: Tensor) -> tuple[Tensor, float]:
    """Compute the gradient of ``sum(weights * values)`` with respect to the logits; the values keep their graph.

    In half precision most gradients of easy logits would round to 0. There the gradient is multiplied by the largest
    power of two that does not overflow.

    Args:
        logits: Class logits [A, L].
        values: Loss of each anchor, connected to the logits [A].
        weights: Weight of each anchor, treated as a constant [A].

    Returns:
        The gradient times a factor [A, L], and the factor. The gradient is 0 if the logits require none.
    """
    if not (logits.requires_grad and values.requires_grad):
        return torch.zeros_like(logits), 1.0
    weights = weights.detach().to(values.dtype)
    exponents = [0]
    if logits.dtype == torch.float16:
        largest = float(weights.abs().max()) if len(weights) else 1.0
        start = LARGEST_HALF - (round(torch.tensor(largest).log2().item()) if largest > 0 else 0)
        exponents = [start - 4 * attempt for attempt in range(4)]
    for exponent in exponents:
        factor = 2.0**exponent
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(values, logits, weights * factor, retain_graph=True)
        if gradient.isfinite().all():
            break
    return gradient, factor


def loss_over_norms(
    logits: Tensor, labels: Tensor, gradients: Tensor, score_logits: Callable[[Tensor], Tensor], bins: int = NORM_BINS
) -> NormDistribution:
    """Compute histograms of the logits and their gradients over the norm ``g = |p - y|``, as GHM does.

    ``p`` is the score, and ``y`` is 1 for the class of the anchor and 0 for others. Ignored anchors are excluded. If
    the loss has columns besides one per class, their gradients are added to the bin of the anchor's largest norm.

    Args:
        logits: Class logits [A, L].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        gradients: Gradient of the loss, summed by magnitude [A, L].
        score_logits: Converts logits to those whose sigmoid is the score [n, L] -> [n, C].
        bins: Number of equal bins of [0, 1].
    """
    logits = logits.detach()
    one = torch.ones((), dtype=_wide(logits.device), device=logits.device)
    counts, before, after = one.new_zeros(2, bins), one.new_zeros(bins), one.new_zeros(bins)
    entropies = []
    for chunk in chunks(logits):
        x = score_logits(readable(logits[chunk])).float()
        positive, column = (labels[chunk] >= 0).unsqueeze(1), labels[chunk].clamp(min=0).unsqueeze(1)
        own = x.gather(1, column)
        signed = x.scatter(1, column, torch.where(positive, -own, own))  # sigmoid(signed) is the norm
        norms = signed.sigmoid()
        ignored = (labels[chunk] == IGNORED).unsqueeze(1)
        entropies.append(softplus(signed).sum(1).masked_fill(ignored.squeeze(1), 0.0))
        index = norm_bins(norms, bins, torch.int64).masked_fill_(ignored, bins)
        magnitudes = gradients[chunk].abs().to(one.dtype)
        all_counts = _sums(index, one.expand_as(index), bins)
        own_index = torch.where(positive, index.gather(1, column), bins)
        pos_counts = _sums(own_index, one.expand_as(own_index), bins)
        counts += torch.stack([pos_counts, all_counts - pos_counts])
        before += _sums(index, norms.to(one.dtype), bins)
        after += _sums(index, magnitudes[:, : norms.shape[1]], bins)
        if magnitudes.shape[1] > norms.shape[1]:
            extra = magnitudes[:, norms.shape[1] :].sum(1, keepdim=True)
            after += _sums(index.amax(1, keepdim=True), extra, bins)
    return NormDistribution(counts, before, after, torch.cat(entropies))


def _sums(index: Tensor, values: Tensor, bins: int) -> Tensor:
    """Sum the values of each index below ``bins`` [bins]."""
    # Sum each column separately first, so that fewer GPU threads add to the same number.
    sums = torch.zeros(bins + 1, index.shape[1], dtype=values.dtype, device=values.device)
    return sums.scatter_add_(0, index, values)[:bins].sum(1)


def value_distribution(values: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    """Compute a histogram of losses for each group, with counts and sums; bins are equal on a logarithmic scale.

    Args:
        values: Losses [A]; 0 is in the first bin.
        groups: Group of each loss, 0 to ``num_groups`` - 1; losses with a negative group are excluded [A].
        num_groups: Number of groups.

    Returns:
        Counts and sums [2, num_groups, VALUE_BINS].
    """
    wide = _wide(values.device)
    bin_number = (values.to(wide).log10() - SMALLEST_VALUE) * VALUES_PER_DECADE
    index = bin_number.nan_to_num(0.0, VALUE_BINS, 0.0).clamp(0, VALUE_BINS - 1).long() + groups * VALUE_BINS
    index = index.where(groups >= 0, num_groups * VALUE_BINS)
    histogram = torch.zeros(2, num_groups * VALUE_BINS + 1, dtype=wide, device=values.device)
    histogram[0].scatter_add_(0, index, torch.ones_like(values, dtype=wide))
    histogram[1].scatter_add_(0, index, values.to(wide))
    return histogram[:, :-1].reshape(2, num_groups, VALUE_BINS)


def group_sums(values: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    """Sum the values of each group [num_groups]; values with a negative group are excluded."""
    index = groups.where(groups >= 0, num_groups)
    sums = torch.zeros(num_groups + 1, dtype=_wide(values.device), device=values.device)
    return sums.scatter_add_(0, index, values.to(sums.dtype))[:-1]


def _wide(device: torch.device) -> torch.dtype:
    """Return the type of accumulators."""
    return torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64


def cumulative_shares(spread: Array) -> tuple[Array, Array]:
    """Compute the cumulative loss over the samples, hardest first (figure 4 of https://arxiv.org/abs/1708.02002).

    Args:
        spread: Counts and sums of one group, from :func:`value_distribution` [2, VALUE_BINS].

    Returns:
        Cumulative fractions of the samples and of the loss, from 0 to 1. Both begin with 0, followed by one entry per
        non-empty bin. They are empty if there is no loss.
    """
    counts, sums = spread[:, ::-1]
    filled = counts > 0
    if not sums.sum() > 0:
        return np.empty(0), np.empty(0)
    samples, losses = (np.append(0.0, np.cumsum(values[filled])) for values in (counts, sums))
    return samples / samples[-1], losses / losses[-1]


def hardest_share(spread: Array, share: float) -> float:
    """Compute the fraction of the loss that the hardest samples contribute; NaN if there is no loss.

    Args:
        spread: Counts and sums of one group, from :func:`value_distribution` [2, VALUE_BINS].
        share: Fraction of the samples, from 0 to 1.
    """
    samples, losses = cumulative_shares(spread)
    return float(np.interp(share, samples, losses)) if len(samples) else math.nan
