"""Online hard example mining, OHEM (https://arxiv.org/abs/1604.03540), in the variant of dense detectors."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .fused.sigmoid_terms import may_read_numbers
from .stable_top import stable_smallest


def hard_negatives(
    values: Tensor,
    labels: Tensor,
    image_idxs: Tensor,
    num_images: int,
    ratio: float = 3.0,
    k_min: int = 1,
    counts: Sequence[int] | None = None,
) -> Tensor:
    """Select all positives and the hardest background anchors of each image (https://arxiv.org/abs/1604.03540).

    Args:
        values: Loss of each anchor [A].
        labels: Class of each anchor; -1 background, -2 ignored [A].
        image_idxs: Image of each anchor, 0 to B - 1; images may have different numbers of anchors [A].
        num_images: Number of images B.
        ratio: Number of background anchors to keep for each positive of an image.
        k_min: Lower bound of the number of positives of an image that ``ratio`` is applied to.
        counts: Number of anchors of each image, if the anchors are in the order of images. By default anchors are
            sorted by image and counted, which synchronises the device.

    Returns:
        1 for selected anchors, 0 for others [A].

    Example:
        >>> values, labels = torch.tensor([0.1, 0.9, 0.3, 0.5]), torch.tensor([-1, -1, -1, 0])
        >>> hard_negatives(values, labels, torch.zeros(4).long(), num_images=1, ratio=2)
        tensor([0., 1., 1., 1.])
    """
    if not len(values):
        return torch.zeros_like(values)
    costs, order = (-values.detach()).masked_fill_(labels != -1, float("inf")), None
    if counts is None:
        counts, order = image_idxs.bincount(minlength=num_images).tolist(), image_idxs.argsort(stable=True)
        costs, labels = costs[order], labels[order]
    of_images, positive = _by_image(costs, counts, float("inf")), _by_image(labels >= 0, counts, 0.0)
    number = ratio * positive.sum(1).clamp(min=k_min)
    number = number.nan_to_num(nan=float("inf"), posinf=float("inf"))  # inf * 0 is NaN: an infinite ratio keeps all
    number = number.ceil().clamp(max=len(costs)).long()
    most = int(number.max()) if may_read_numbers(costs) else max(counts)  # no device synchronisation
    hardest = stable_smallest(of_images, number.clamp(min=1), most) & (number > 0).unsqueeze(1)
    marked = hardest | positive
    kept = torch.cat([row[:count] for row, count in zip(marked, counts, strict=True)]).to(values.dtype)
    return kept if order is None else torch.empty_like(kept).scatter_(0, order, kept)


def _by_image(values: Tensor, counts: Sequence[int], padding: float) -> Tensor:
    """Arrange the values of anchors in one row for each image [B, K]; rows of smaller images are padded."""
    if len(set(counts)) == 1:
        return values.view(len(counts), -1)
    return pad_sequence(values.split(list(counts)), batch_first=True, padding_value=padding)
