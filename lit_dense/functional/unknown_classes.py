"""Unknown classes: classes that an image is not annotated for, so that its anchors are no negatives of them."""

from __future__ import annotations  # torch 2.4 cannot compile nested functions annotated with X | None

import torch
from torch import Tensor

from .fused.anchor_loss import readable

UNKNOWN_LOGIT = -5e4
"""Logit that stands for an unknown class: its score is 0, and float16 and bfloat16 can hold it."""
_LARGEST_UNKNOWN = -4e4  # with a margin for rounding in half precision


def unknown_negatives(labels: Tensor, unknown: Tensor, image_idxs: Tensor) -> Tensor:
    """Return which logits have no target, because the class is unknown in the image and not that of the anchor.

    Args:
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        unknown: Whether a class is unknown in an image, bool [B, L].
        image_idxs: Image of each anchor [A].

    Returns:
        A mask of the logits [A, L].

    Example:
        >>> unknown = torch.tensor([[False, True], [True, True]])
        >>> unknown_negatives(torch.tensor([1, -1, 0]), unknown, torch.tensor([0, 0, 1])).tolist()
        [[False, False], [False, True], [False, True]]
    """
    mask = unknown[image_idxs]
    own = labels.clamp(min=0).unsqueeze(1)
    return mask.scatter(1, own, mask.gather(1, own) & (labels < 0).unsqueeze(1))


def hide_unknown(logits: Tensor, mask: Tensor) -> Tensor:
    """Replace logits without a target by :data:`UNKNOWN_LOGIT`; they get no gradient [A, L].

    Args:
        logits: Logits [A, L].
        mask: The result of :func:`unknown_negatives` [A, L].
    """
    return logits.masked_fill(mask, UNKNOWN_LOGIT)


def is_hidden(logits: Tensor) -> Tensor:
    """Return whether a logit was replaced by :func:`hide_unknown`.

    Args:
        logits: Logits of any shape and floating-point type.
    """
    return logits < _LARGEST_UNKNOWN


def softmax_without_unknown(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Hide unknown classes from a softmax with background, so that background includes them.

    The classes exclude each other. A negative of an image with unknown classes is known to be background or an object
    of one of them: its background gets the sum of their probabilities. A positive is compared with the other classes.

    Args:
        logits: Logits of the classes, then of background [A, C + 1].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        mask: The result of :func:`unknown_negatives` [A, C + 1].

    Returns:
        Logits in float32 or wider [A, C + 1].
    """
    wide = readable(logits)
    merged = torch.cat([wide[:, :-1].masked_fill(~mask[:, :-1], UNKNOWN_LOGIT), wide[:, -1:]], 1).logsumexp(1)
    background = torch.where(labels < 0, merged, wide[:, -1])
    return torch.cat([hide_unknown(wide, mask)[:, :-1], background.unsqueeze(1)], 1)


def seesaw_without_unknown(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Hide unknown classes from a softmax over classes and one over object and background, with the rule of a softmax.

    Args:
        logits: Logits of the classes, then of object and background [A, C + 2].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        mask: The result of :func:`unknown_negatives` [A, C + 2].

    Returns:
        Logits in float32 or wider [A, C + 2].
    """
    wide = readable(logits)
    classes, hidden = wide[:, :-2], mask[:, :-2]
    total = classes.logsumexp(1)
    known = hide_unknown(classes, hidden)
    log_known = known.logsumexp(1) - total
    log_unknown = hide_unknown(classes, ~hidden).logsumexp(1) - total
    positive, none = labels >= 0, ~hidden.any(1)
    # without unknown classes the logits stay as they are, to the last digit
    same = positive | none
    an_object = torch.where(same, wide[:, -2], wide[:, -2] + log_known)
    background = torch.where(same, wide[:, -1], torch.logaddexp(wide[:, -1], wide[:, -2] + log_unknown))
    return torch.cat([known, an_object.unsqueeze(1), background.unsqueeze(1)], 1)
