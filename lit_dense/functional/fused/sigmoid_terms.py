"""Losses of single logits: what an element costs as a yes and as a no, added up over the classes of an anchor."""

from __future__ import annotations  # torch 2.4 compiles no function that is defined in another with X | None

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .anchor_loss import IGNORED, Rows, per_anchor

ValueAndSlope = tuple[Tensor, Tensor]


class SigmoidTerms(NamedTuple):
    """A loss of single logits, each with its derivative with respect to the logit.

    Args:
        negative: Terms whose target is 0. Gets logits [n, C] and the anchors' labels [n]; returns two [n, C].
        positive: The elements of the anchors' own classes. Gets logits [n], labels [n] and soft targets [n], None
            where all are 1; returns two [n]. What it says of background is not used.
    """

    negative: Callable[[Tensor, Tensor], ValueAndSlope]
    positive: Callable[[Tensor, Tensor, Tensor | None], ValueAndSlope]


class ClassGradients(NamedTuple):
    """How strongly a loss pulls at each class: absolute derivatives, summed over the anchors that count.

    Args:
        positive: Of elements whose target is not 0, float64 [C].
        negative: Of elements whose target is 0, float64 [C].
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
        logits: Scores before the sigmoid [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        terms: The loss.
        soft_targets: Target of each anchor's own class in [0, 1], None for 1 [A].
        class_weights: Factor of the elements of each class, None for 1 [C]; or of those whose target is 0 and 1 [2, C].

    Returns:
        One value per anchor, 0 where it is ignored, connected to the logits whatever they are [A].
    """
    return per_anchor(logits, labels, rows_formula(terms, class_weights), soft_targets)[0]


def sum_over_classes_and_gradients(
    logits: Tensor,
    labels: Tensor,
    terms: SigmoidTerms,
    soft_targets: Tensor | None = None,
    class_weights: Tensor | None = None,
) -> tuple[Tensor, ClassGradients]:
    """:func:`sum_over_classes`, and the gradient's sums over anchors by class, gathered in the same pass."""
    values, sums = per_anchor(logits, labels, rows_formula(terms, class_weights, with_gradients=True), soft_targets)
    assert sums is not None  # for the type checker: the formula below always gives them
    return values, ClassGradients(sums[0], sums[1])


def rows_formula(
    terms: SigmoidTerms, class_weights: Tensor | None = None, with_gradients: bool = False
) -> Callable[[Tensor, Tensor, Tensor | None], Rows]:
    """A loss of single logits as a formula of whole anchors, for :func:`per_anchor`.

    Args:
        terms: The loss.
        class_weights: Factor of the elements of each class, None for 1 [C]; or of those whose target is 0 and 1 [2, C].
        with_gradients: Whether to add up the gradient by class [2, C].
    """

    def rows(x: Tensor, labels: Tensor, targets: Tensor | None) -> Rows:
        value, slope = terms.negative(x, labels)
        if class_weights is not None:
            of_negatives, of_positives = class_weights.expand(2, -1)
            value, slope = value * of_negatives, slope * of_negatives
        column = labels.clamp(min=0)
        own_value, own_slope = terms.positive(x.gather(1, column.unsqueeze(1)).squeeze(1), labels, targets)
        if class_weights is not None:
            own_value, own_slope = own_value * of_positives[column], own_slope * of_positives[column]
        sums = _gradient_sums(slope, own_slope, labels) if with_gradients else None
        # the dense formula took every element for a no: the few that are a yes are put in its place
        return Rows(with_own(value, labels, own_value).sum(1), with_own(slope, labels, own_slope), sums)

    return rows


def with_own(elements: Tensor, labels: Tensor, values: Tensor) -> Tensor:
    """SigmoidTerms [n, C] with a value [n] in place of that of the anchor's own class, which may change the elements.

    Args:
        elements: Of all classes [n, C].
        labels: Class of each anchor; where it is negative nothing is replaced [n].
        values: What the elements of the anchors' own classes become [n].
    """
    if torch.compiler.is_compiling():  # a comparison becomes part of the kernel, where an index would end it
        return torch.where(_is_own(elements, labels), values.unsqueeze(1), elements)
    column = labels.clamp(min=0).unsqueeze(1)
    chosen = torch.where(labels >= 0, values, elements.gather(1, column).squeeze(1)).unsqueeze(1)
    if torch.is_grad_enabled():  # autograd may want the elements as they were
        return elements.scatter(1, column, chosen)
    return elements.scatter_(1, column, chosen)


def _is_own(elements: Tensor, labels: Tensor) -> Tensor:
    return torch.arange(elements.shape[1], device=elements.device) == labels.unsqueeze(1)


def _gradient_sums(slope: Tensor, own_slope: Tensor, labels: Tensor) -> Tensor:
    """Sums of absolute slopes by class, of positive and of negative elements, float64 [2, C].

    A hard element's slope is millions of times that of an easy one, and a class may have hundreds of thousands of easy
    ones. So the own elements are left out before the sum: subtracted from it afterwards, they would take the easy ones'
    share with them. ``Tensor.sum`` adds in a tree, where a matrix product adds row by row and rounds small slopes away.
    The sums are float64, so that those of many chunks add up as exactly.
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
