"""Cleanliness scores of Learning from Noisy Anchors (https://arxiv.org/abs/1912.05086)."""

from typing import Literal

import torch
from torch import Tensor

CleanlinessForm = Literal["reference", "paper"]
NEARLY_ONE = 1 - 1e-6
"""Upper bound of IoUs and scores, which keeps ``1 / (1 - z)`` finite."""


def cleanliness_targets(
    ious: Tensor, scores: Tensor, images: Tensor, num_images: int, alpha: float, form: CleanlinessForm
) -> Tensor:
    """Compute the soft target of each candidate anchor, its cleanliness (https://arxiv.org/abs/1912.05086).

    Args:
        ious: IoU of the predicted box with the ground-truth box, detached [P].
        scores: Predicted score of the ground-truth class, detached [P].
        images: Image of each candidate [P].
        num_images: Number of images B.
        alpha: Weight of the IoU, in [0, 1]; the weight of the score is ``1 - alpha``.
        form: ``paper``: ``alpha * iou + (1 - alpha) * score``. ``reference``, the authors' code: IoU and score are
            divided by their means over the image, and the result is rescaled to the range from the mean IoU to 1. If
            all candidates of an image are equal, rescaling is undefined and the form of the paper is used.

    Returns:
        Targets in [0, 1] [P].

    Example:
        >>> ious, scores = torch.tensor([0.8, 0.6, 0.4]), torch.tensor([0.5, 0.3, 0.1])
        >>> cleanliness_targets(ious, scores, torch.zeros(3, dtype=torch.long), 1, 0.75, "reference")
        tensor([1.0000, 0.8000, 0.6000])
    """
    as_paper = alpha * ious + (1 - alpha) * scores
    if form == "paper":
        return as_paper.clamp(0, 1)
    mean_iou = _image_mean(ious, images, num_images)
    mean_score = _image_mean(scores, images, num_images)
    relative = alpha * _divide(ious, mean_iou) + (1 - alpha) * _divide(scores, mean_score)
    low = relative.new_zeros(num_images).scatter_reduce(0, images, relative, "amin", include_self=False)[images]
    high = relative.new_zeros(num_images).scatter_reduce(0, images, relative, "amax", include_self=False)[images]
    width = high - low
    rescaled = mean_iou + (relative - low) * (1 - mean_iou) / width.clamp(min=1e-6)
    return torch.where(width > 1e-6, rescaled, as_paper).clamp(0, 1)


def cleanliness_weights(
    ious: Tensor,
    scores: Tensor,
    images: Tensor,
    num_images: int,
    alpha: float,
    gamma: float,
    form: CleanlinessForm,
) -> Tensor:
    """Compute the weight of each candidate anchor, which grows with its cleanliness (https://arxiv.org/abs/1912.05086).

    The weight is ``(alpha * f(iou) + (1 - alpha) * f(score)) ** gamma`` with ``f(z) = 1 / (1 - z)``. In the reference
    form each f is divided by its mean over the image.

    Args:
        ious: IoU of the predicted box with the ground-truth box, detached [P].
        scores: Predicted score of the ground-truth class, detached [P].
        images: Image of each candidate [P].
        num_images: Number of images B.
        alpha: Weight of the IoU, in [0, 1]; the weight of the score is ``1 - alpha``.
        gamma: Exponent of the weight; the authors' code has no exponent, which corresponds to 1.
        form: ``reference`` or ``paper``.

    Returns:
        Weights greater than 0, finite even where an IoU or a score is 1 [P].
    """
    by_iou, by_score = 1 / (1 - ious.clamp(max=NEARLY_ONE)), 1 / (1 - scores.clamp(max=NEARLY_ONE))
    if form == "reference":
        by_iou = by_iou / _image_mean(by_iou, images, num_images)
        by_score = by_score / _image_mean(by_score, images, num_images)
    return (alpha * by_iou + (1 - alpha) * by_score) ** gamma


def _image_mean(values: Tensor, images: Tensor, num_images: int) -> Tensor:
    """Return for each candidate the mean over the candidates of its image [P]."""
    total = values.new_zeros(num_images).index_add(0, images, values)
    number = values.new_zeros(num_images).index_add(0, images, torch.ones_like(values))
    return (total / number.clamp(min=1))[images]


def _divide(values: Tensor, mean: Tensor) -> Tensor:
    return values / mean.clamp(min=torch.finfo(mean.dtype).tiny)
