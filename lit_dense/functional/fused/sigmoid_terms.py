"""Losses of single logits: a positive and a negative term for each logit, summed over the classes of an anchor."""

from __future__ import annotations  # torch 2.4 cannot compile nested functions annotated with X | None

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor

from ..unknown_classes import is_hidden
from .anchor_loss import IGNORED, Rows, SplitFormula, per_anchor, readable

ValueAndSlope = tuple[Tensor, Tensor]

FEW_CLASSES = 8
"""Largest number of classes that are faster summed column by column on a CPU."""
COLUMNS = 16
"""Columns that a compiled kernel sums at once, where the number of columns is a multiple."""

_all_rows: ContextVar[bool] = ContextVar("all_rows", default=False)


class SigmoidTerms(NamedTuple):
    """A loss of single logits: functions that compute its terms and their derivatives with respect to the logit.

    Args:
        negative: Loss of logits whose target is 0. Takes logits [n, C] and labels [n]; returns values [n, C] and slopes
            [n, C].
        positive: Loss of the logits of the positives' classes. Takes logits [P], labels [P] and soft targets [P], or
            None if all are 1; returns values [P] and slopes [P]. Where the positives are not known on a GPU, and in a
            model that is compiled as a whole, it gets all anchors of the chunk instead, with negative labels for
            background; results for background are not used.
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
    has_unknown: bool = False,
    positives: Tensor | None = None,
) -> Tensor:
    """Sum a loss of single logits over the classes of each anchor.

    Args:
        logits: Class logits [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        terms: The loss.
        soft_targets: Target of the logit of each anchor's class, in [0, 1]; None means 1 [A].
        class_weights: Factor of each class's terms [C], or of its negative and positive terms [2, C]; None means 1.
        has_unknown: Whether some logits are hidden, because the class is unknown in the image; they have no term.
        positives: Indices of the anchors with a class, in ascending order; by default they are searched [P].

    Returns:
        One value per anchor, 0 for ignored anchors, always connected to the logits [A].
    """
    formula = rows_formula(terms, class_weights, False, has_unknown, positives, len(labels))
    return per_anchor(logits, labels, formula, soft_targets)[0]


def sum_over_classes_and_gradients(
    logits: Tensor,
    labels: Tensor,
    terms: SigmoidTerms,
    soft_targets: Tensor | None = None,
    class_weights: Tensor | None = None,
    has_unknown: bool = False,
    positives: Tensor | None = None,
) -> tuple[Tensor, ClassGradients]:
    """Compute :func:`sum_over_classes` and, in the same pass, the sums of gradients by class.

    Args:
        logits: Class logits [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        terms: The loss.
        soft_targets: Target of the logit of each anchor's class, in [0, 1]; None means 1 [A].
        class_weights: Factor of each class's terms [C], or of its negative and positive terms [2, C]; None means 1.
        has_unknown: Whether some logits are hidden, because the class is unknown in the image; they have no term.
        positives: Indices of the anchors with a class, in ascending order; by default they are searched [P].

    Returns:
        One value per anchor [A], and the absolute gradients of each class.
    """
    formula = rows_formula(terms, class_weights, True, has_unknown, positives, len(labels))
    values, sums = per_anchor(logits, labels, formula, soft_targets)
    assert sums is not None  # for the type checker: with_gradients always gives them
    return values, ClassGradients(sums[0], sums[1])


def rows_formula(
    terms: SigmoidTerms,
    class_weights: Tensor | None = None,
    with_gradients: bool = False,
    has_unknown: bool = False,
    positives: Tensor | None = None,
    number: int = 0,
) -> SplitFormula:
    """Make the formula of a loss of single logits, for :func:`per_anchor`.

    Args:
        terms: The loss.
        class_weights: Factor of each class's terms [C], or of its negative and positive terms [2, C]; None means 1.
        with_gradients: Whether the statistic is the sum of absolute gradients by class, positive and negative [2, C].
        has_unknown: Whether some logits are hidden, because the class is unknown in the image; they have no term.
        positives: Indices of the anchors with a class, in ascending order; by default they are searched [P].
        number: Number of all anchors, to which ``positives`` belong; in a part of them they are searched.
    """

    def own_logits(labels: Tensor) -> OwnLogits:
        # compiled code must not depend on the number of positives
        known = not torch.compiler.is_compiling() and len(labels) == number
        return OwnLogits(labels, rows=positives if known else None)

    def whole(x: Tensor, labels: Tensor, targets: Tensor | None) -> Rows:
        own = own_logits(labels)
        value, slope = _as_negatives(terms, class_weights, has_unknown, x, labels)
        own_value, own_slope = _as_positives(terms, class_weights, own.take(x), own, targets)
        sums = None
        if with_gradients:
            negative = own.replace(slope.detach().abs(), torch.zeros_like(own_slope))
            sums = torch.stack([own.sum_by_class(own_slope, x.shape[1]), _sum_counted(negative, labels)])
        # All logits were treated as negatives. Overwriting the ground-truth column avoids one-hot targets.
        return Rows(sum_columns(own.replace(value, own_value)), own.replace(slope, own_slope), sums)

    def rest(x: Tensor, labels: Tensor, targets: Tensor | None) -> Rows:
        value, slope = _as_negatives(terms, class_weights, has_unknown, x, labels)
        own = own_mask(labels, x.shape[1])
        value, slope = value.masked_fill(own, 0.0), slope.masked_fill(own, 0.0)
        sums = None
        if with_gradients:
            negative = _sum_counted(slope.abs(), labels)
            sums = torch.stack([torch.zeros_like(negative), negative])
        return Rows(sum_columns(value), slope, sums)

    def own_terms(logits: Tensor, labels: Tensor, targets: Tensor | None) -> OwnLogitsTerms:
        own = own_logits(labels)
        own_x = readable(own.take(logits))
        value, slope = _as_positives(terms, class_weights, own_x, own, targets)
        sums = None
        if with_gradients:
            positive = own.sum_by_class(slope, logits.shape[1])
            sums = torch.stack([positive, torch.zeros_like(positive)])
        return OwnLogitsTerms(own, value, slope, sums)

    return SplitFormula(whole, rest, own_terms)


def _as_negatives(
    terms: SigmoidTerms, class_weights: Tensor | None, has_unknown: bool, x: Tensor, labels: Tensor
) -> ValueAndSlope:
    """Compute the negative terms of all logits [n, C] and their slopes [n, C]."""
    value, slope = terms.negative(x, labels)
    if has_unknown:  # a loss with smoothed targets has a term at any logit
        hidden = is_hidden(x)
        value, slope = value.masked_fill(hidden, 0.0), slope.masked_fill(hidden, 0.0)
    if class_weights is not None:
        neg_weights = class_weights.expand(2, -1)[0]
        value, slope = value * neg_weights, slope * neg_weights
    return value, slope


def _as_positives(
    terms: SigmoidTerms, class_weights: Tensor | None, own_x: Tensor, own: OwnLogits, targets: Tensor | None
) -> ValueAndSlope:
    """Compute the positive terms of the logits of the positives' classes [n or P] and their slopes [n or P].

    ``own_x`` are these logits [n or P]; ``targets`` are those of all anchors [n].
    """
    value, slope = terms.positive(own_x, own.labels, own.rows_of(targets))
    if class_weights is not None:
        pos_weights = class_weights.expand(2, -1)[1][own.column]
        value, slope = value * pos_weights, slope * pos_weights
    return value, slope


def sums_by_column(values: Tensor) -> bool:
    """Whether rows [n, C] are so short that adding one column after the other is faster."""
    return values.shape[1] <= FEW_CLASSES and not torch.compiler.is_compiling() and values.device.type == "cpu"


def sum_columns(values: Tensor) -> Tensor:
    """Sum the columns of each row [n, C] -> [n]."""
    if torch.compiler.is_compiling() and values.shape[1] % COLUMNS == 0:
        blocks: Tensor = values.unflatten(1, (-1, COLUMNS))
        return blocks.sum(2).sum(1)  # a kernel pads rows to the next power of two
    if not sums_by_column(values):
        return values.sum(1)
    # ``Tensor.sum`` reduces one row after the other, which takes twice the time for short rows.
    columns = values.unbind(1)
    total = columns[0] + columns[1] if len(columns) > 1 else columns[0]
    for column in columns[2:]:
        total += column
    return total


@contextmanager
def rows_as_on_a_gpu() -> Iterator[None]:
    """Compute positive terms of all rows on a CPU too, within this context: tests see the operations of a GPU."""
    token = _all_rows.set(True)
    try:
        yield
    finally:
        _all_rows.reset(token)


def may_read_numbers(tensor: Tensor) -> bool:
    """Whether operations may depend on numbers of a tensor: on a CPU, where no device has to be waited for."""
    # torch 2.4 cannot compile context variables: test them last
    return not torch.compiler.is_compiling() and tensor.device.type == "cpu" and not _all_rows.get()


class OwnLogits:
    """Access to the logit of each positive's class: read it, and replace its term.

    Only positives are read, which are few, if they are known or can be searched. Compiled code reads all rows, and so
    does a GPU if the positives are not known: a search would end the compiled kernel, or synchronise the device. Rows
    without a class are then left unchanged.

    Attributes:
        labels: Class of each row that is read; negative for rows without a class [n or P].
        column: The same, 0 for rows without a class [n or P].

    Args:
        labels: Class of each anchor; negative for anchors without a class [n].
        every_row: Whether every row has a class.
        rows: Indices of the rows with a class, if they are known [P].
    """

    def __init__(self, labels: Tensor, every_row: bool = False, rows: Tensor | None = None) -> None:
        self._every_row = every_row
        all_rows = every_row or (rows is None and not may_read_numbers(labels))
        self._rows = None if all_rows else (labels >= 0).nonzero().squeeze(1) if rows is None else rows
        self.labels = self._of_rows(labels)
        self.column = self.labels.clamp(min=0) if all_rows and not every_row else self.labels

    def rows_of(self, values: Tensor | None) -> Tensor | None:
        """Select the entries of the rows that are read [n] -> [n or P]."""
        return None if values is None else self._of_rows(values)

    def _of_rows(self, values: Tensor) -> Tensor:
        return values if self._rows is None else values[self._rows]

    def take(self, x: Tensor) -> Tensor:
        """Read the logit of each row's class [n, C] -> [n or P]; the first logit of rows without a class."""
        if self._rows is None:
            return x.gather(1, self.column.unsqueeze(1)).squeeze(1)
        return x[self._rows, self.column]

    def replace(self, terms: Tensor, values: Tensor) -> Tensor:
        """Replace the term of each row's class; may modify ``terms`` in place.

        Args:
            terms: Values or slopes of all logits [n, C].
            values: New terms [n or P].
        """
        in_place = not torch.is_grad_enabled()  # else autograd may need the original terms
        if self._rows is not None:
            index = (self._rows, self.column)
            return terms.index_put_(index, values) if in_place else terms.index_put(index, values)
        if torch.compiler.is_compiling():  # a comparison is fused into the kernel, whereas indexing would end it
            return torch.where(own_mask(self.labels, terms.shape[1]), values.unsqueeze(1), terms)
        column = self.column.unsqueeze(1)
        own = values.unsqueeze(1)
        if not self._every_row:
            own = torch.where(self.labels.unsqueeze(1) >= 0, own, terms.gather(1, column))
        return terms.scatter_(1, column, own) if in_place else terms.scatter(1, column, own)

    def sum_by_class(self, slopes: Tensor, num_classes: int) -> Tensor:
        """Sum the absolute slope of each row by class, in float64 [C].

        Args:
            slopes: Slope of each row [n or P].
            num_classes: Number of classes, C.
        """
        sizes = slopes.detach().abs()
        if torch.compiler.is_compiling():
            mask = own_mask(self.labels, num_classes)
            return torch.where(mask, sizes.unsqueeze(1), 0.0).sum(0).double()
        counted = torch.where(self.labels >= 0, sizes, 0.0).double()
        zeros = torch.zeros(num_classes, dtype=torch.float64, device=slopes.device)
        return zeros.index_add(0, self.column, counted)

    def add(self, totals: Tensor, values: Tensor) -> Tensor:
        """Add one value per row to the totals of the anchors; may modify ``totals`` in place.

        Args:
            totals: Total of each anchor [n].
            values: Value of each row [n or P].
        """
        if self._rows is None:
            return torch.where(self.labels >= 0, totals + values, totals)
        return totals.index_add_(0, self._rows, values)


class OwnLogitsTerms(NamedTuple):
    """Terms of the logits of the positives' classes, see :class:`~lit_dense.functional.fused.anchor_loss.OwnTerms`.

    Args:
        own: The logits.
        values: Their values [n or P].
        slopes: Their slopes [n or P].
        statistic: Sum of the absolute slopes by class, in the first of two rows [2, C]; or None.
    """

    own: OwnLogits
    values: Tensor
    slopes: Tensor
    statistic: Tensor | None

    def add_to(self, values: Tensor) -> Tensor:
        """Add the values to those of all anchors [A]."""
        return self.own.add(values, self.values)

    def write_to(self, slopes: Tensor, scale: Tensor) -> None:
        """Write the slopes, multiplied by the scale of each anchor [A, 1], into those of all logits [A, L]."""
        scales = self.own.rows_of(scale.squeeze(1))
        assert scales is not None  # for the type checker: the scale is given
        self.own.replace(slopes, (self.slopes * scales).to(slopes.dtype))


def own_mask(labels: Tensor, num_columns: int) -> Tensor:
    """Mask of the logit of each anchor's class; no logit of anchors without a class [n, L].

    Args:
        labels: Class of each anchor; negative for anchors without a class [n].
        num_columns: Number of columns of the logits, L.
    """
    columns = torch.arange(num_columns, dtype=torch.int32, device=labels.device)
    return columns == labels.to(torch.int32).unsqueeze(1)  # a kernel compares int32 faster than int64


def _sum_counted(slopes: Tensor, labels: Tensor) -> Tensor:
    """Sum absolute slopes of negatives [n, C] over the anchors that are not ignored, float64 [C]; modifies them.

    The slope of a hard logit can be millions of times that of an easy one, and a class can have hundreds of thousands
    of easy logits. Three choices keep the sums of small slopes exact. Slopes of ground-truth classes are set to 0
    before the sum, not subtracted from it. ``Tensor.sum`` adds in a tree; a matrix product adds row by row and loses
    small slopes to rounding. The sums of chunks are added in float64.
    """
    return slopes.mul_((labels != IGNORED).to(slopes.dtype).unsqueeze(1)).sum(0).double()
