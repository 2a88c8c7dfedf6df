"""Losses of single logits: a positive and a negative term for each logit, summed over the classes of an anchor."""

from __future__ import annotations  # torch 2.4 cannot compile nested functions annotated with X | None

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .anchor_loss import IGNORED, Rows, per_anchor

ValueAndSlope = tuple[Tensor, Tensor]


class SigmoidTerms(NamedTuple):
    """A loss of single logits: functions that compute its terms and their derivatives with respect to the logit.

    Args:
        negative: Loss of logits whose target is 0. Takes logits [n, C] and labels [n]; returns values [n, C] and slopes
            [n, C].
        positive: Loss of the logits of the anchors' ground-truth classes. Takes logits [n], labels [n] and soft targets
            [n], or None if all are 1; returns values [n] and slopes [n]. Results for background are not used.
    """

    negative: Callable[[Tensor, Tensor], ValueAndSlope]
    positive: Callable[[Tensor, Tensor, Tensor | None], ValueAndSlope]


class ClassGradients(NamedTuple):
    """Absolute gradients of a loss by class, summed over the anchors that are not ignored.

    Args:
        positive: Sum over logits of ground-truth classes, float64 [C].
        negative: Sum over all other logits, float64 [C].
    """

    positive: Tensor
    negative: Tensor


def sum_over_classes(
    logits: Tensor,
    labels: Tensor,
    terms: SigmoidTerms,
    soft_targets: Tensor | None = None,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Sum a loss of single logits over the classes of each anchor.

    Args:
        logits: Class logits [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        terms: The loss.
        soft_targets: Target of the logit of each anchor's class, in [0, 1]; None means 1 [A].
        class_weights: Factor of each class's terms [C], or of its negative and positive terms [2, C]; None means 1.

    Returns:
        One value per anchor, 0 for ignored anchors, always connected to the logits [A].
    """
    return per_anchor(logits, labels, rows_formula(terms, class_weights), soft_targets)[0]


def sum_over_classes_and_gradients(
    logits: Tensor,
    labels: Tensor,
    terms: SigmoidTerms,
    soft_targets: Tensor | None = None,
    class_weights: Tensor | None = None,
) -> tuple[Tensor, ClassGradients]:
    """Compute :func:`sum_over_classes` and, in the same pass, the sums of gradients by class.

    Args:
        logits: Class logits [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        terms: The loss.
        soft_targets: Target of the logit of each anchor's class, in [0, 1]; None means 1 [A].
        class_weights: Factor of each class's terms [C], or of its negative and positive terms [2, C]; None means 1.

    Returns:
        One value per anchor [A], and the absolute gradients of each class.
    """
    values, sums = per_anchor(logits, labels, rows_formula(terms, class_weights, with_gradients=True), soft_targets)
    assert sums is not None  # for the type checker: with_gradients always gives them
    return values, ClassGradients(sums[0], sums[1])


def rows_formula(
    terms: SigmoidTerms, class_weights: Tensor | None = None, with_gradients: bool = False
) -> Callable[[Tensor, Tensor, Tensor | None], Rows]:
    """Make the formula of a loss of single logits, for :func:`per_anchor`.

    Args:
        terms: The loss.
        class_weights: Factor of each class's terms [C], or of its negative and positive terms [2, C]; None means 1.
        with_gradients: Whether the statistic is the sum of absolute gradients by class, positive and negative [2, C].
    """

    def rows(x: Tensor, labels: Tensor, targets: Tensor | None) -> Rows:
        value, slope = terms.negative(x, labels)
        if class_weights is not None:
            neg_weights, pos_weights = class_weights.expand(2, -1)
            value, slope = value * neg_weights, slope * neg_weights
        column = labels.clamp(min=0)
        own_value, own_slope = terms.positive(x.gather(1, column.unsqueeze(1)).squeeze(1), labels, targets)
        if class_weights is not None:
            own_value, own_slope = own_value * pos_weights[column], own_slope * pos_weights[column]
        sums = _gradient_sums(slope, own_slope, labels) if with_gradients else None
        # All logits were treated as negatives. Overwriting the ground-truth column avoids one-hot targets.
        return Rows(with_own(value, labels, own_value).sum(1), with_own(slope, labels, own_slope), sums)

    return rows


def with_own(terms: Tensor, labels: Tensor, values: Tensor) -> Tensor:
    """Replace the term of each anchor's ground-truth class; may modify ``terms`` in place.

    Args:
        terms: Values or slopes of all logits [n, C].
        labels: Class of each anchor; nothing is replaced where it is negative [n].
        values: New value of the term of each anchor's class [n].

    Returns:
        The terms with the replaced values [n, C].
    """
    if torch.compiler.is_compiling():  # a comparison is fused into the kernel, whereas indexing would end it
        return torch.where(_is_own(terms, labels), values.unsqueeze(1), terms)
    column = labels.clamp(min=0).unsqueeze(1)
    own = torch.where(labels >= 0, values, terms.gather(1, column).squeeze(1)).unsqueeze(1)
    if torch.is_grad_enabled():  # autograd may need the original terms
        return terms.scatter(1, column, own)
    return terms.scatter_(1, column, own)


def _is_own(terms: Tensor, labels: Tensor) -> Tensor:
    """Mask of the terms of the anchors' ground-truth classes [n, C]."""
    return torch.arange(terms.shape[1], device=terms.device) == labels.unsqueeze(1)


def _gradient_sums(slope: Tensor, own_slope: Tensor, labels: Tensor) -> Tensor:
    """Sum absolute slopes by class, for positive and for negative terms, float64 [2, C].

    The slope of a hard logit can be millions of times that of an easy one, and a class can have hundreds of thousands
    of easy logits. Three choices keep the sums of small slopes exact. Slopes of ground-truth classes are set to 0
    before the sum of negatives, not subtracted from it. ``Tensor.sum`` adds in a tree; a matrix product adds row by row
    and loses small slopes to rounding. The sums of chunks are added in float64.
    """
    counted = (labels != IGNORED).to(slope.dtype).unsqueeze(1)
    negative = with_own(slope.detach().abs(), labels, torch.zeros_like(own_slope)).mul_(counted).sum(0).double()
    own_slope = own_slope.detach().abs()
    if torch.compiler.is_compiling():
        positive = torch.where(_is_own(slope, labels), own_slope.unsqueeze(1), 0.0).sum(0).double()
    else:
        own = torch.where(labels >= 0, own_slope, 0.0).double()
        positive = torch.zeros_like(negative).index_add(0, labels.clamp(min=0), own)
    return torch.stack([positive, negative])
