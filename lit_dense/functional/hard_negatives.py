"""Online hard example mining (https://arxiv.org/abs/1604.03540) as dense detectors do it."""

import torch
from torch import Tensor


def hard_negatives(values: Tensor, labels: Tensor, num_images: int, ratio: float = 3.0, k_min: int = 1) -> Tensor:
    """Choose all positives and the hardest background anchors of each image (https://arxiv.org/abs/1604.03540).

    Args:
        values: Loss of each anchor; images have equally many anchors, one image after the other [A].
        labels: Class of each anchor; -1 background, -2 ignored [A].
        num_images: B.
        ratio: Background anchors to keep for each positive of an image.
        k_min: Positives that an image is taken to have at least.

    Returns:
        1 where an anchor is kept, 0 elsewhere [A].

    Example:
        >>> hard_negatives(torch.tensor([0.1, 0.9, 0.3, 0.5]), torch.tensor([-1, -1, -1, 0]), 1, ratio=2)
        tensor([0., 1., 1., 1.])
    """
    by_image = labels.view(num_images, -1) if num_images else labels.view(0, 0)
    background = by_image == -1
    number = ratio * (by_image >= 0).sum(1, keepdim=True).clamp(min=k_min)
    number = number.nan_to_num(nan=float("inf"), posinf=float("inf"))  # infinitely many for each of no positives
    hardness = values.detach().view_as(by_image).masked_fill(~background, float("-inf"))
    order = hardness.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(by_image.shape[1], device=values.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, places)
    return ((rank < number) & background | (by_image >= 0)).to(values.dtype).flatten()
