"""How a loss is spread over elements and anchors (https://arxiv.org/abs/1811.05181, https://arxiv.org/abs/1708.02002)."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from .fused.anchor_loss import IGNORED, readable
from .fused.chunking import chunks
from .gradient_histogram import norm_bins

Array = npt.NDArray[Any]

NORM_BINS = 30
"""Equal parts of the gradient norm's range, as in GHM."""
VALUES_PER_DECADE, SMALLEST_VALUE, VALUE_BINS = 40, -18, 24 * 40
"""Parts of a histogram of losses, from 1e-18 to 1e6: neighbours differ by 6 %."""
LARGEST_HALF = 15
"""Half precision's range ends just below two to the power of 16."""


class NormDistribution(NamedTuple):
    """What the elements of each gradient norm amount to.

    Args:
        counts: Logits whose target is 1, and elements whose target is 0 [2, bins].
        before: Sum of the gradient of plain cross-entropy, which is the norm itself [bins].
        after: Sum of the gradient's magnitude that was given [bins].
        entropies: Plain cross-entropy of each anchor, 0 where it is ignored [A].
    """

    counts: Tensor
    before: Tensor
    after: Tensor
    entropies: Tensor


def logit_gradients(logits: Tensor, values: Tensor, weights: Tensor) -> tuple[Tensor, float]:
    """The gradient of ``sum(weights * values)`` with respect to the logits; the values keep their graph.

    In half precision most gradients of easy elements would round to 0: there they are multiplied by a power of two, as
    great as it can be.

    Args:
        logits: Scores [A, L].
        values: Loss of each anchor, connected to the logits [A].
        weights: Taken for constants [A].

    Returns:
        The gradient times a factor [A, L], 0 where the logits need none; and the factor.
    """
    if not (logits.requires_grad and values.requires_grad):
        return torch.zeros_like(logits), 1.0
    weights = weights.detach().to(values.dtype)
    exponents = [0]
    if logits.dtype == torch.float16:
        largest = float(weights.abs().max()) if len(weights) else 1.0
        start = LARGEST_HALF - (round(torch.tensor(largest).log2().item()) if largest > 0 else 0)
        exponents = [start - 4 * tries for tries in range(4)]
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
    """Sort the elements, one for each anchor and class, by the norm ``g = |p - y|``, as GHM does.

    ``p`` is the score and ``y`` is 1 for the anchor's own class. Ignored anchors are left out. The gradient of columns
    that the loss has besides one per class counts where the anchor's greatest norm lies.

    Args:
        logits: Scores [A, L].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        gradients: What is added up by magnitude [A, L].
        score_logits: Turns logits into those whose sigmoid is the score [n, L] -> [n, C].
        bins: Equal parts of [0, 1].
    """
    logits = logits.detach()
    one = torch.ones((), dtype=_wide(logits.device), device=logits.device)
    counts, before, after = one.new_zeros(2, bins), one.new_zeros(bins), one.new_zeros(bins)
    entropies = []
    for chunk in chunks(logits):
        x = score_logits(readable(logits[chunk])).float()
        own, column = (labels[chunk] >= 0).unsqueeze(1), labels[chunk].clamp(min=0).unsqueeze(1)
        at_own = x.gather(1, column)
        wrong = x.scatter(1, column, torch.where(own, -at_own, at_own))  # its sigmoid is the norm
        norms = wrong.sigmoid()
        ignored = (labels[chunk] == IGNORED).unsqueeze(1)
        entropies.append(F.softplus(wrong).sum(1).masked_fill(ignored.squeeze(1), 0.0))
        index = norm_bins(norms, bins, torch.int64).masked_fill_(ignored, bins)
        pull = gradients[chunk].abs().to(one.dtype)
        found = _sums(index, one.expand_as(index), bins)
        own_index = torch.where(own, index.gather(1, column), bins)
        yes = _sums(own_index, one.expand_as(own_index), bins)
        counts += torch.stack([yes, found - yes])
        before += _sums(index, norms.to(one.dtype), bins)
        after += _sums(index, pull[:, : norms.shape[1]], bins)
        if pull.shape[1] > norms.shape[1]:
            extra = pull[:, norms.shape[1] :].sum(1, keepdim=True)
            after += _sums(index.amax(1, keepdim=True), extra, bins)
    return NormDistribution(counts, before, after, torch.cat(entropies))


def _sums(index: Tensor, values: Tensor, bins: int) -> Tensor:
    """The sum of values of each index below ``bins`` [bins]."""
    # a sum for each column at first: fewer threads of a device want to add to the same number
    sums = torch.zeros(bins + 1, index.shape[1], dtype=values.dtype, device=values.device)
    return sums.scatter_add_(0, index, values)[:bins].sum(1)


def value_distribution(values: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    """A histogram of losses with the sum of each bin; bins are equal on a logarithmic scale.

    Args:
        values: Losses; what is 0 lies in the first bin [A].
        groups: Group of each, 0 to ``num_groups`` - 1; what is negative is left out [A].
        num_groups: How many groups.

    Returns:
        Counts and sums [2, num_groups, VALUE_BINS].
    """
    wide = _wide(values.device)
    place = (values.to(wide).log10() - SMALLEST_VALUE) * VALUES_PER_DECADE
    index = place.nan_to_num(0.0, VALUE_BINS, 0.0).clamp(0, VALUE_BINS - 1).long() + groups * VALUE_BINS
    index = index.where(groups >= 0, num_groups * VALUE_BINS)
    spread = torch.zeros(2, num_groups * VALUE_BINS + 1, dtype=wide, device=values.device)
    spread[0].scatter_add_(0, index, torch.ones_like(values, dtype=wide))
    spread[1].scatter_add_(0, index, values.to(wide))
    return spread[:, :-1].reshape(2, num_groups, VALUE_BINS)


def group_sums(values: Tensor, groups: Tensor, num_groups: int) -> Tensor:
    """The sum of each group's values [num_groups]; a negative group is left out."""
    index = groups.where(groups >= 0, num_groups)
    sums = torch.zeros(num_groups + 1, dtype=_wide(values.device), device=values.device)
    return sums.scatter_add_(0, index, values.to(sums.dtype))[:-1]


def _wide(device: torch.device) -> torch.dtype:
    """The type that sums are kept in."""
    return torch.float32 if device.type == "mps" else torch.float64  # it has no float64


def cumulative_shares(spread: Array) -> tuple[Array, Array]:
    """The share of the loss over the share of samples, hardest first (figure 4 of https://arxiv.org/abs/1708.02002).

    Args:
        spread: Counts and sums of one group by value, from :func:`value_distribution` [2, VALUE_BINS].

    Returns:
        Shares of the samples and of the loss, from 0 to 1, one place for each bin that is filled and one before them;
        empty where there is no loss.
    """
    counts, sums = spread[:, ::-1]
    filled = counts > 0
    if not sums.sum() > 0:
        return np.empty(0), np.empty(0)
    samples, carried = (np.append(0.0, np.cumsum(values[filled])) for values in (counts, sums))
    return samples / samples[-1], carried / carried[-1]


def hardest_share(spread: Array, share: float) -> float:
    """How much of a loss its hardest samples carry, of 1; nan where there is no loss.

    Args:
        spread: Counts and sums of one group by value [2, VALUE_BINS].
        share: Which share of the samples.
    """
    samples, carried = cumulative_shares(spread)
    return float(np.interp(share, samples, carried)) if len(samples) else math.nan
