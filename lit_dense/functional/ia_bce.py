"""IoU-aware binary cross-entropy, IA-BCE, of LW-DETR and RF-DETR (https://arxiv.org/abs/2406.03459)."""

import torch
from torch import Tensor

from .focal import focused_cost
from .fused.sigmoid_terms import SigmoidTerms, ValueAndSlope, sum_over_classes
from .softplus import softplus

LEAST_TARGET = 0.01


def ia_bce_terms(gamma: float = 2.0) -> SigmoidTerms:
    """Return the terms of IoU-aware BCE: soft-target cross-entropy of positives, focal loss of negatives."""

    def negative(x: Tensor, labels: Tensor) -> ValueAndSlope:
        return focused_cost(x, gamma, 1.0)

    def positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> ValueAndSlope:
        t = torch.ones_like(x) if targets is None else targets
        return t * softplus(-x) + (1 - t) * softplus(x), torch.sigmoid(x) - t

    return SigmoidTerms(negative, positive)


def ia_bce_targets(scores: Tensor, ious: Tensor, alpha: float = 0.25) -> Tensor:
    """Compute the targets of positives, ``score ** alpha * iou ** (1 - alpha)``, at least 0.01 and detached [P].

    Args:
        scores: Predicted score of each positive's class, in [0, 1] [P].
        ious: IoU of the predicted box with the ground-truth box [P].
        alpha: Exponent of the score, in [0, 1].
    """
    return (scores.detach() ** alpha * ious.detach() ** (1 - alpha)).clamp(min=LEAST_TARGET)


def ia_bce_loss(
    logits: Tensor, labels: Tensor, alpha: float = 0.25, gamma: float = 2.0, ious: Tensor | None = None
) -> Tensor:
    """IoU-aware BCE of LW-DETR (https://arxiv.org/abs/2406.03459) of each anchor, summed over classes.

    Args:
        logits: Class logits [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        alpha: Exponent of the score in the target of a positive, in [0, 1]; the exponent of the IoU is ``1 - alpha``.
        gamma: Focusing exponent of negative terms, at least 0.
        ious: IoU of each anchor's predicted box with its ground-truth box [A]; used for positives only; None means 1.

    Returns:
        One value per anchor, 0 for ignored anchors [A].

    Example:
        >>> ia_bce_loss(torch.tensor([[0.4055]]), torch.tensor([0]), ious=torch.tensor([0.8]))
        tensor([0.6144])
    """
    own = logits.detach().gather(1, labels.clamp(min=0).unsqueeze(1)).squeeze(1)
    scores = own.to(torch.promote_types(own.dtype, torch.float32)).sigmoid()
    targets = ia_bce_targets(scores, torch.ones_like(scores) if ious is None else ious, alpha)
    return sum_over_classes(logits, labels, ia_bce_terms(gamma), targets)
