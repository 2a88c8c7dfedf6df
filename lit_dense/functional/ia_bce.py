"""IoU-aware binary cross-entropy of LW-DETR and RF-DETR (https://arxiv.org/abs/2406.03459)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .focal import focused_cost
from .fused.sigmoid_terms import SigmoidTerms, ValueAndSlope, sum_over_classes

LEAST_TARGET = 0.01


def ia_bce_terms(gamma: float = 2.0) -> SigmoidTerms:
    """The two branches of IoU-aware BCE: cross-entropy with a soft target, negatives turned down where right."""

    def negative(x: Tensor, labels: Tensor) -> ValueAndSlope:
        return focused_cost(x, gamma, 1.0)

    def positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> ValueAndSlope:
        t = torch.ones_like(x) if targets is None else targets
        return t * F.softplus(-x) + (1 - t) * F.softplus(x), torch.sigmoid(x) - t

    return SigmoidTerms(negative, positive)


def ia_bce_targets(scores: Tensor, ious: Tensor, alpha: float = 0.25) -> Tensor:
    """Targets of positives, ``score ** alpha * iou ** (1 - alpha)``, at least 0.01; detached.

    Args:
        scores: Score that each positive gives its own class, in [0, 1] [P].
        ious: IoU of its predicted box with its object [P].
        alpha: Share of the score, in [0, 1].
    """
    return (scores.detach() ** alpha * ious.detach() ** (1 - alpha)).clamp(min=LEAST_TARGET)


def ia_bce_loss(
    logits: Tensor, labels: Tensor, alpha: float = 0.25, gamma: float = 2.0, ious: Tensor | None = None
) -> Tensor:
    """IoU-aware BCE of LW-DETR (https://arxiv.org/abs/2406.03459) of each anchor, summed over its classes.

    Args:
        logits: Scores before the sigmoid [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        alpha: Share of the score in the target of a positive, in [0, 1]; the rest is the IoU's.
        gamma: How strongly negative elements that are right are turned down, at least 0.
        ious: IoU of each anchor's predicted box with its object, None for 1; read at positives [A].

    Returns:
        One value per anchor, 0 where it is ignored [A].

    Example:
        >>> ia_bce_loss(torch.tensor([[0.4055]]), torch.tensor([0]), ious=torch.tensor([0.8]))
        tensor([0.6144])
    """
    own = logits.detach().gather(1, labels.clamp(min=0).unsqueeze(1)).squeeze(1)
    scores = own.to(torch.promote_types(own.dtype, torch.float32)).sigmoid()
    targets = ia_bce_targets(scores, torch.ones_like(scores) if ious is None else ious, alpha)
    return sum_over_classes(logits, labels, ia_bce_terms(gamma), targets)
