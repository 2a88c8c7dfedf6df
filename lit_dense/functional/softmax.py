"""Softmax cross-entropy over the classes and background (no paper)."""

from __future__ import annotations  # torch 2.4 cannot compile nested functions annotated with X | None

import torch
import torch.nn.functional as F
from torch import Tensor

from .bootstrapping import TargetChange
from .fused.anchor_loss import Rows, per_anchor
from .fused.sigmoid_terms import OwnLogits, sum_columns, sums_by_column
from .softplus import log1p
from .unknown_classes import is_hidden

LARGEST_PROBABILITY = 1 - 1e-6
"""Upper bound of probabilities that are converted to logits, which keeps the logits finite."""


LABELS_AS_THEY_ARE = TargetChange()


def softmax_loss(
    logits: Tensor,
    labels: Tensor,
    background_weight: float = 1.0,
    change: TargetChange = LABELS_AS_THEY_ARE,
    has_unknown: bool = False,
) -> Tensor:
    """Softmax cross-entropy of each anchor, over C classes and background.

    Args:
        logits: Logits of the classes, then of background [A, C + 1].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        background_weight: Weight of background anchors.
        change: Label smoothing and bootstrapping of all targets.
        has_unknown: Whether some logits are hidden, because the class is unknown in the image; they have no target.

    Returns:
        One value per anchor, 0 for ignored anchors [A].

    Example:
        >>> softmax_loss(torch.zeros(2, 4), torch.tensor([1, -1]))
        tensor([1.3863, 1.3863])
    """
    columns = labels.masked_fill(labels < 0, logits.shape[1] - 1)

    def rows(x: Tensor, labels: Tensor, column: Tensor | None) -> Rows:
        assert column is not None  # for the type checker: it is always given
        log_p = log_softmax(x)
        if change.smoothing or change.form is not None:
            p = log_p.detach().exp()
            targets = change.mixed_rows(column, p, ~is_hidden(x) if has_unknown else None)
            values = -(targets * log_p).sum(1)

            def slopes() -> Tensor:
                return p - targets
        else:
            values = F.nll_loss(log_p, column, reduction="none")

            def slopes() -> Tensor:
                own = OwnLogits(column, every_row=True)
                return own.replace(log_p.detach().exp(), torch.expm1(-values.detach()))

        if background_weight == 1:
            return Rows(values, slopes)
        weight = torch.ones_like(values).masked_fill(labels < 0, background_weight).detach()
        return Rows(values * weight, lambda: slopes() * weight.unsqueeze(1))

    return per_anchor(logits, labels, rows, columns)[0]


def log_softmax(x: Tensor) -> Tensor:
    """Compute the logarithm of the softmax of each row [n, L].

    ``torch.log_softmax`` reduces one row after the other on a CPU, which takes five times as long for rows of six.

    Args:
        x: Logits [n, L].
    """
    if not sums_by_column(x):
        return torch.log_softmax(x, 1)
    shifted = x - x.detach().amax(dim=1, keepdim=True)
    return shifted - sum_columns(shifted.exp()).log().unsqueeze(1)


def softmax_score_logits(logits: Tensor) -> Tensor:
    """Convert logits to those whose sigmoid is the softmax probability of each class [..., C + 1] -> [..., C]."""
    log_p = F.log_softmax(logits, dim=-1)[..., :-1]
    return log_p - log1p(-log_p.exp().clamp(max=LARGEST_PROBABILITY))
