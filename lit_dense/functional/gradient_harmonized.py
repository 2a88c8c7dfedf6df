"""Gradient harmonized losses, GHM-C and GHM-R (https://arxiv.org/abs/1811.05181)."""

from __future__ import annotations  # torch 2.4 cannot compile nested functions annotated with X | None

from typing import Literal

import torch
from torch import Tensor

from .fused.anchor_loss import Rows, per_anchor
from .fused.sigmoid_terms import SigmoidTerms, ValueAndSlope, rows_formula, sum_over_classes
from .gradient_histogram import norm_bins
from .softplus import softplus

HistogramUpdate = Literal["corrected", "paper", "reference"]


def harmonize(
    counts: Tensor, history: Tensor, steps: Tensor, momentum: float, update: HistogramUpdate, power: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Compute the weight of each bin's terms, and update the moving average of the histogram.

    Args:
        counts: Number of terms of the batch in each bin [bins].
        history: The moving average before this batch [bins].
        steps: Number of histograms in the moving average [].
        momentum: Weight of the past in the average.
        update: ``corrected`` applies bias correction; without it, weights start ``1 / (1 - momentum)`` times too
            large. ``paper`` does not, and divides by the number of all bins. ``reference`` follows the authors' code:
            no bias correction, and empty bins keep their average.
        power: Power of the average, in [0, 1]. 1 divides each term by the average count of its bin, as in the paper; 0
            gives every term the same weight.

    Returns:
        Weights [bins] and the new average [bins]. The weight of a bin is ``average ** -power / total``, where ``total``
        is the sum of ``average ** (1 - power)`` over non-empty bins. It is 0 for empty bins. With power 1 ``total`` is
        the number of non-empty bins.

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
    """Compute the weights of the bins of each pyramid level; the levels update one moving average in turn.

    The authors' code does the same: it is called once per level, the finest level first.

    Args:
        counts: Number of terms of the batch in each bin of each level [num_levels, bins].
        history: The moving average before this batch [bins].
        steps: Number of histograms in the moving average, one per level and batch [].
        momentum: Weight of the past in the average, at each level.
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
    positives: Tensor | None = None,
) -> Tensor:
    """Compute the cross-entropy of each anchor, with each term multiplied by the weight of its bin [A].

    Args:
        logits: Class logits [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        bin_weights: Weight of each bin [bins], or of each level's bins [num_levels, bins].
        class_weights: Factor of each class's terms [C], or of its negative and positive terms [2, C]; None means 1.
        levels: Pyramid level of each anchor; required if ``bin_weights`` has levels [A].
        positives: Indices of the anchors with a class, in ascending order; by default they are searched [P].
    """

    def rows(x: Tensor, labels: Tensor, levels: Tensor | None) -> Rows:
        return rows_formula(harmonized_terms(bin_weights, levels), class_weights).whole(x, labels, levels)

    if levels is not None:  # each anchor has its own weights
        return per_anchor(logits, labels, rows, levels)[0]
    return sum_over_classes(logits, labels, harmonized_terms(bin_weights), None, class_weights, positives=positives)


def harmonized_terms(bin_weights: Tensor, levels: Tensor | None = None) -> SigmoidTerms:
    """Return the terms of cross-entropy, each multiplied by the weight of its bin.

    Args:
        bin_weights: Weight of each bin [bins], or of each level's bins [num_levels, bins].
        levels: Pyramid level of each anchor [n]. The positive term takes the levels of its logits as its targets.
    """
    bins = bin_weights.shape[-1]

    def weight(norms: Tensor, levels: Tensor | None) -> Tensor:
        index = norm_bins(norms.detach(), bins, torch.int32)
        if levels is not None:
            index = index + bins * levels
        return bin_weights.to(norms.dtype).flatten().index_select(0, index.flatten()).view_as(norms)

    def negative(x: Tensor, labels: Tensor) -> ValueAndSlope:
        p = torch.sigmoid(x)
        factor = weight(p, None if levels is None else levels.unsqueeze(1))
        return factor * softplus(x), factor * p

    def positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> ValueAndSlope:
        # 1 - p as in the histogram: sigmoid(-x) may round to a different bin.
        factor = weight(1 - torch.sigmoid(x), None if levels is None else targets)
        return factor * softplus(-x), -factor * torch.sigmoid(-x)

    return SigmoidTerms(negative, positive)
