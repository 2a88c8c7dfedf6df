"""Cleanliness of candidates, Learning from Noisy Anchors (https://arxiv.org/abs/1912.05086)."""

from typing import Literal

import torch
from torch import Tensor

CleanlinessForm = Literal["reference", "paper"]
NEARLY_ONE = 1 - 1e-6


def cleanliness_targets(
    ious: Tensor, scores: Tensor, images: Tensor, num_images: int, alpha: float, form: CleanlinessForm
) -> Tensor:
    """Soft target of each candidate from how well it predicts its object (https://arxiv.org/abs/1912.05086).

    Args:
        ious: IoU of the predicted box with the object, detached [P].
        scores: Predicted probability of the object's class, detached [P].
        images: Image of each candidate [P].
        num_images: B.
        alpha: Share of the IoU, in [0, 1].
        form: ``paper``, ``alpha * iou + (1 - alpha) * score``; ``reference``, as the authors' code, both over their
            means in the image, and stretched to reach from the mean IoU to 1. Where all candidates of an image are
            equal, so that there is nothing to stretch, that of the paper.

    Returns:
        Targets in [0, 1] [P].

    Example:
        >>> ious, scores = torch.tensor([0.8, 0.6, 0.4]), torch.tensor([0.5, 0.3, 0.1])
        >>> cleanliness_targets(ious, scores, torch.zeros(3, dtype=torch.long), 1, 0.75, "reference")
        tensor([1.0000, 0.8000, 0.6000])
    """
    plain = alpha * ious + (1 - alpha) * scores
    if form == "paper":
        return plain.clamp(0, 1)
    mean_iou = _image_mean(ious, images, num_images)
    relative = alpha * _over(ious, mean_iou) + (1 - alpha) * _over(scores, _image_mean(scores, images, num_images))
    low = relative.new_zeros(num_images).scatter_reduce(0, images, relative, "amin", include_self=False)[images]
    high = relative.new_zeros(num_images).scatter_reduce(0, images, relative, "amax", include_self=False)[images]
    width = high - low
    stretched = mean_iou + (relative - low) * (1 - mean_iou) / width.clamp(min=1e-6)
    return torch.where(width > 1e-6, stretched, plain).clamp(0, 1)


def cleanliness_weights(
    ious: Tensor,
    scores: Tensor,
    images: Tensor,
    num_images: int,
    alpha: float,
    gamma: float,
    form: CleanlinessForm,
) -> Tensor:
    """Weight of each candidate, larger the cleaner it is (https://arxiv.org/abs/1912.05086).

    ``(alpha * f(iou) + (1 - alpha) * f(score)) ** gamma`` with ``f(z) = 1 / (1 - z)``; in the reference form each f is
    over its mean in the image.

    Args:
        ious: IoU of the predicted box with the object, detached [P].
        scores: Predicted probability of the object's class, detached [P].
        images: Image of each candidate [P].
        num_images: B.
        alpha: Share of the IoU, in [0, 1].
        gamma: Power; the authors' code has none, which is 1.
        form: ``reference`` or ``paper``.

    Returns:
        Weights over 0, finite also where an IoU or a score is 1 [P].
    """
    by_iou, by_score = 1 / (1 - ious.clamp(max=NEARLY_ONE)), 1 / (1 - scores.clamp(max=NEARLY_ONE))
    if form == "reference":
        by_iou = by_iou / _image_mean(by_iou, images, num_images)
        by_score = by_score / _image_mean(by_score, images, num_images)
    return (alpha * by_iou + (1 - alpha) * by_score) ** gamma


def _image_mean(values: Tensor, images: Tensor, num_images: int) -> Tensor:
    """Mean over the candidates of the same image, for each candidate [P]."""
    total = values.new_zeros(num_images).index_add(0, images, values)
    number = values.new_zeros(num_images).index_add(0, images, torch.ones_like(values))
    return (total / number.clamp(min=1))[images]


def _over(values: Tensor, mean: Tensor) -> Tensor:
    return values / mean.clamp(min=torch.finfo(mean.dtype).tiny)
