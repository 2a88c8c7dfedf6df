"""A loss of single logits in which some logits have a weight of their positive and one of their negative term."""

from __future__ import annotations  # torch 2.4 cannot compile nested functions annotated with X | None

import torch
from torch import Tensor

from ..unknown_classes import is_hidden
from .anchor_loss import Rows, per_anchor
from .sigmoid_terms import SigmoidTerms, ValueAndSlope, sum_over_classes


def sum_with_dual_weights(
    logits: Tensor,
    labels: Tensor,
    terms: SigmoidTerms,
    anchors: Tensor,
    columns: Tensor,
    pos_weights: Tensor,
    neg_weights: Tensor,
    class_weights: Tensor | None = None,
    has_unknown: bool = False,
) -> Tensor:
    """Sum a loss of single logits over the classes of each anchor, with dual weights of the logits of objects.

    The logit of each anchor's label counts 0, all other logits count as negatives. Then each pair adds
    ``pos_weight * positive + neg_weight * negative`` of its logit. A logit may be in several pairs.

    Args:
        logits: Class logits [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        terms: The loss; its negative term may not depend on the class.
        anchors: Anchor of each pair, none of them ignored [P].
        columns: Class of each pair, 0 to C - 1 [P].
        pos_weights: Factor of the positive term of each pair [P].
        neg_weights: Factor of the negative term of each pair; negative to reduce that of a logit which the labels count
            [P].
        class_weights: Factor of each class's terms [C], or of its negative and positive terms [2, C]; None means 1.
        has_unknown: Whether some logits are hidden, because the class is unknown in the image; they have no term.

    Returns:
        One value per anchor, 0 for ignored anchors, always connected to the logits [A].
    """

    def nothing(x: Tensor, labels: Tensor, targets: Tensor | None) -> ValueAndSlope:
        return torch.zeros_like(x), torch.zeros_like(x)

    def rows(x: Tensor, columns: Tensor, weights: Tensor | None) -> Rows:
        assert weights is not None  # for the type checker: they are always given
        pos_weight, neg_weight = weights.to(x.dtype).unbind(1)
        if class_weights is not None:
            neg_factor, pos_factor = class_weights.expand(2, -1)
            pos_weight, neg_weight = pos_weight * pos_factor[columns], neg_weight * neg_factor[columns]
        value, slope = terms.positive(x.squeeze(1), columns, None)
        neg_value, neg_slope = terms.negative(x, columns)
        if has_unknown:  # an anchor inside several objects, of which one has an unknown class
            known = ~is_hidden(x.squeeze(1))
            pos_weight, neg_weight = pos_weight * known, neg_weight * known
        values = pos_weight * value + neg_weight * neg_value.squeeze(1)
        return Rows(values, (pos_weight * slope).unsqueeze(1) + neg_weight.unsqueeze(1) * neg_slope)

    negatives = terms._replace(positive=nothing)
    totals = sum_over_classes(logits, labels, negatives, class_weights=class_weights, has_unknown=has_unknown)
    weights = torch.stack([pos_weights, neg_weights], 1)
    values, _ = per_anchor(logits[anchors, columns].unsqueeze(1), columns, rows, weights)
    return totals.index_add(0, anchors, values)
