"""The columns of a detector's class logits: their meaning, their order in a loss, and the scores they give."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..losses import DenseLoss


@dataclass(frozen=True)
class Columns:
    """Meaning of the columns of a stage's class logits.

    Args:
        classes: C, number of object classes.
        background: Position of the background column; None if there is none.
        scores: Function with which the detector's own inference computes scores.
        first_label: Label of the first class in the detector's targets.
    """

    classes: int
    background: Literal["first", "last"] | None = None
    scores: Literal["sigmoid", "softmax"] = "sigmoid"
    first_label: int = 0


def loss_columns(logits: Tensor, extra_logits: int) -> Tensor:
    """Reorder class logits with background first into the order of a loss's columns [..., C + extra_logits].

    If the loss has no extra columns, the background column is dropped: it stays in the model and gets no gradient.

    Args:
        logits: Class logits of the detector, background first [..., 1 + C].
        extra_logits: Number of extra columns of the loss, 0 or 1.
    """
    if extra_logits == 0:
        return logits[..., 1:]
    # not two slices: their gradients would be two tensors of zeros as large as the logits, and their sum
    background, classes = logits.split([1, logits.shape[-1] - 1], -1)
    return torch.cat([classes, background], -1)


def _without_background(columns: Columns, values: Tensor) -> Tensor:
    """Drop the background column [..., L] -> [..., C]."""
    if columns.background is None:
        return values
    return values[..., 1:] if columns.background == "first" else values[..., :-1]


@torch.no_grad()
def own_scores(columns: Columns, loss: DenseLoss) -> bool:
    """Whether a detector's own inference computes the scores that a loss trains; compared on sample logits.

    Args:
        columns: Meaning of the columns of the class logits.
        loss: The classification loss.
    """
    width = columns.classes + int(columns.background is not None)
    state = next(iter([*loss.parameters(), *loss.buffers()]), torch.empty(0))
    logits = torch.linspace(-3, 3, 2 * width, device=state.device).view(2, width)
    own = logits.softmax(-1) if columns.scores == "softmax" else logits.sigmoid()
    own = _without_background(columns, own)
    if columns.background == "first":
        logits = loss_columns(logits, loss.extra_logits)
    elif loss.extra_logits == 0:
        logits = _without_background(columns, logits)
    trained = loss.score_logits(logits).sigmoid()
    return own.shape == trained.shape and bool(torch.allclose(own, trained, atol=1e-5))
