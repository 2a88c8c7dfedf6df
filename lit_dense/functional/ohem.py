"""Online hard example mining, OHEM (https://arxiv.org/abs/1604.03540), in the variant of dense detectors."""

import torch
from torch import Tensor


def hard_negatives(
    values: Tensor, labels: Tensor, image_idxs: Tensor, num_images: int, ratio: float = 3.0, k_min: int = 1
) -> Tensor:
    """Select all positives and the hardest background anchors of each image (https://arxiv.org/abs/1604.03540).

    Args:
        values: Loss of each anchor [A].
        labels: Class of each anchor; -1 background, -2 ignored [A].
        image_idxs: Image of each anchor, 0 to B - 1; images may have different numbers of anchors [A].
        num_images: Number of images B.
        ratio: Number of background anchors to keep for each positive of an image.
        k_min: Lower bound of the number of positives of an image that ``ratio`` is applied to.

    Returns:
        1 for selected anchors, 0 for others [A].

    Example:
        >>> values, labels = torch.tensor([0.1, 0.9, 0.3, 0.5]), torch.tensor([-1, -1, -1, 0])
        >>> hard_negatives(values, labels, torch.zeros(4).long(), num_images=1, ratio=2)
        tensor([0., 1., 1., 1.])
    """
    background = labels == -1
    positives = torch.zeros(num_images, dtype=torch.int64, device=labels.device)
    positives.scatter_add_(0, image_idxs, (labels >= 0).long())
    number = ratio * positives.clamp(min=k_min)
    number = number.nan_to_num(nan=float("inf"), posinf=float("inf"))  # inf * 0 is NaN: an infinite ratio keeps all
    hardness = values.detach().masked_fill(~background, float("-inf"))
    order = hardness.argsort(descending=True, stable=True)
    order = order[image_idxs[order].argsort(stable=True)]  # by image, then by hardness
    sorted_images = image_idxs[order]
    sorted_rank = torch.arange(len(order), device=order.device) - torch.searchsorted(sorted_images, sorted_images)
    rank = torch.empty_like(order).scatter_(0, order, sorted_rank)
    return ((rank < number[image_idxs]) & background | (labels >= 0)).to(values.dtype)
