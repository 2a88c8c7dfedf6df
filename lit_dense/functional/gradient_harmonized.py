"""Gradient harmonized losses, GHM-C and GHM-R (https://arxiv.org/abs/1811.05181)."""

from __future__ import annotations  # torch 2.4 compiles no function that is defined in another with X | None

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .fused.anchor_loss import Rows, per_anchor
from .fused.sigmoid_terms import SigmoidTerms, ValueAndSlope, rows_formula
from .gradient_histogram import norm_bins

HistogramUpdate = Literal["corrected", "paper", "reference"]


def harmonize(
    counts: Tensor, history: Tensor, steps: Tensor, momentum: float, update: HistogramUpdate, power: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Weight of the elements of each bin, and the moving average of counts.

    Args:
        counts: Logits of the batch in each bin [bins].
        history: The moving average before this batch [bins].
        steps: Number of histograms that it has seen, [].
        momentum: Share of the past in the average.
        update: ``corrected`` (bias correction, so that the first steps are not ``1 / (1 - momentum)`` times too
            large), ``paper`` (none, and divided by all bins) or ``reference`` (the authors' code: none, and a bin
            without elements keeps its average).
        power: Power of the average, in [0, 1]: 1 divides each element by the average count of its bin, as in the
            paper; 0 gives every element the same weight.

    Returns:
        ``average ** -power / sum of average ** (1 - power)``, the sum over bins with elements, 0 for bins without
        [bins]; and the new average [bins]. With power 1 the sum is the number of bins with elements.

    Example:
        >>> counts = torch.tensor([900.0, 0.0, 100.0])
        >>> harmonize(counts, torch.zeros(3), torch.zeros(()), 0.0, "corrected", power=0.5)[0]
        tensor([0.0008, 0.0000, 0.0025])
    """
    filled = counts > 0
    average = momentum * history + (1 - momentum) * counts
    if update == "reference":
        average = torch.where(filled, average, history)
    density = average / (1 - momentum ** (steps + 1)) if update == "corrected" else average
    shares = density ** (1 - power)
    divisor = (shares if update == "paper" else torch.where(filled, shares, 0.0)).sum()
    return torch.where(filled, 1 / (density**power * divisor), 0.0), average


def harmonize_levels(
    counts: Tensor, history: Tensor, steps: Tensor, momentum: float, update: HistogramUpdate, power: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Weights of the bins of each pyramid level, with one moving average that the levels update in turn.

    This is how the authors' code is called: once for each level, the finest first.

    Args:
        counts: Logits of the batch in each bin of each level [num_levels, bins].
        history: The moving average before this batch [bins].
        steps: Number of histograms that it has seen, one for each level of each batch, [].
        momentum: Share of the past in the average, at each level.
        update: As in :func:`harmonize`.
        power: As in :func:`harmonize`.

    Returns:
        Weights [num_levels, bins] and the new average [bins].
    """
    weights = []
    for level, level_counts in enumerate(counts):
        level_weights, history = harmonize(level_counts, history, steps + level, momentum, update, power)
        weights.append(level_weights)
    return torch.stack(weights), history


def harmonized_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    bin_weights: Tensor,
    class_weights: Tensor | None = None,
    levels: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of each anchor, each element multiplied by the weight of its bin [A].

    Args:
        logits: Scores before the sigmoid [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        bin_weights: Weight of each bin [bins], or of each level's bins [num_levels, bins].
        class_weights: Factor of the elements of each class, None for 1 [C]; apart for targets of 0 and 1 [2, C].
        levels: Pyramid level of each anchor; needed where ``bin_weights`` has levels [A].
    """

    def rows(x: Tensor, labels: Tensor, levels: Tensor | None) -> Rows:
        return rows_formula(harmonized_terms(bin_weights, levels), class_weights)(x, labels, None)

    return per_anchor(logits, labels, rows, levels)[0]


def harmonized_terms(bin_weights: Tensor, levels: Tensor | None = None) -> SigmoidTerms:
    """Cross-entropy, each element multiplied by the weight of its bin.

    Args:
        bin_weights: Weight of each bin [bins], or of each level's bins [num_levels, bins].
        levels: Pyramid level of each anchor [n].
    """
    bins = bin_weights.shape[-1]

    def weight(norms: Tensor) -> Tensor:
        index = norm_bins(norms.detach(), bins, torch.int32)
        if levels is not None:
            index = index + bins * (levels.unsqueeze(1) if norms.dim() == 2 else levels)
        return bin_weights.to(norms.dtype).flatten().index_select(0, index.flatten()).view_as(norms)

    def negative(x: Tensor, labels: Tensor) -> ValueAndSlope:
        p = torch.sigmoid(x)
        factor = weight(p)
        return factor * F.softplus(x), factor * p

    def positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> ValueAndSlope:
        # as in the histogram: 1 - p and sigmoid(-x) may round to different bins
        factor = weight(1 - torch.sigmoid(x))
        return factor * F.softplus(-x), -factor * torch.sigmoid(-x)

    return SigmoidTerms(negative, positive)
