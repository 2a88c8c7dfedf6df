"""Dual weighting, DW (https://arxiv.org/abs/2203.09730): weights of candidates as positives and as negatives."""

import torch
from torch import Tensor

SIGMA = 1.11
"""Standard deviation of the centre prior in cells."""
LEAST_IOU = 0.5
"""IoU below which a candidate is a full negative."""


def centre_prior(offsets: Tensor, sigma: float = SIGMA) -> Tensor:
    """Compute the centre prior of each candidate (https://arxiv.org/abs/2203.09730), a Gaussian of its distance.

    Args:
        offsets: Distance of its centre from that of its object in cells of its level, x y [N, 2].
        sigma: Standard deviation in cells.

    Returns:
        Prior of each candidate, in [0, 1] [N].

    Example:
        >>> centre_prior(torch.tensor([[0.0, 0.0], [1.11, 0.0]]))
        tensor([1.0000, 0.6065])
    """
    return torch.exp(-offsets.square().sum(1) / (2 * sigma**2))


def dual_pos_weights(scores: Tensor, giou_losses: Tensor, priors: Tensor, objects: Tensor, num_objects: int) -> Tensor:
    """Compute the weight of each candidate as a positive of its object (https://arxiv.org/abs/2203.09730).

    With ``t = score * exp(-5 * GIoU loss)`` it is ``exp(5 t) t prior`` over the object's sum of ``exp(3 t) t prior``.

    Args:
        scores: Score of the object's class, detached [N].
        giou_losses: GIoU loss of the predicted box, detached [N].
        priors: Centre prior [N].
        objects: Index of the object of each candidate [N].
        num_objects: Number of objects G.

    Returns:
        Weights of at least 0, about ``exp(2 t)`` for each object [N].

    Example:
        >>> zeros = torch.zeros(2)
        >>> dual_pos_weights(torch.tensor([0.2, 0.6]), zeros, zeros + 1, zeros.long(), 1)
        tensor([0.1361, 3.0172])
    """
    quality = scores * torch.exp(-5 * giou_losses)
    shares = quality * priors
    totals = shares.new_zeros(num_objects).index_add(0, objects, torch.exp(3 * quality) * shares)
    return torch.exp(5 * quality) * shares / totals.clamp(min=torch.finfo(totals.dtype).tiny)[objects]


def dual_neg_weights(ious: Tensor, objects: Tensor, num_objects: int) -> Tensor:
    """Compute the weight of each candidate as a negative of its object's class (https://arxiv.org/abs/2203.09730).

    It is 1 if the IoU is below 0.5. Otherwise it falls with the square of the IoU, to 0 for the best of the object.

    Args:
        ious: IoU of the predicted box with the object's, detached [N].
        objects: Index of the object of each candidate [N].
        num_objects: Number of objects G.

    Returns:
        Weights in [0, 1] [N]. The authors' code gives 1 to candidates of at least 0.5 that are all equal, such as a
        single one; here they have 0, as the best of their object.

    Example:
        >>> dual_neg_weights(torch.tensor([0.85, 0.7, 0.55, 0.3]), torch.tensor([0, 0, 0, 0]), 1)
        tensor([0.0000, 0.4921, 0.8889, 1.0000])
    """
    metric = (1 - ious.square()) / (1 - LEAST_IOU**2)
    low = metric.new_zeros(num_objects).scatter_reduce(0, objects, metric, "amin", include_self=False)
    high = metric.new_zeros(num_objects).scatter_reduce(0, objects, metric, "amax", include_self=False).clamp(max=1)
    width = (high - low)[objects]
    relative = torch.where(width > 0, (metric - low[objects]) / width, 0.0)
    return torch.where(ious < LEAST_IOU, 1.0, relative.to(metric.dtype))


def first_of_elements(elements: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Find the first candidate with each logit, and the smallest weight of the candidates with that logit.

    An anchor inside several objects of one class has one logit for all of them. The authors of dual weighting
    (https://arxiv.org/abs/2203.09730) keep the weight that happens to be written last.

    Args:
        elements: Index of the logit of each candidate [N].
        weights: Weight of each candidate [N].

    Returns:
        The first candidate with each logit, and the smallest weight, in ascending order of the logits [M], [M].
    """
    _, place = torch.unique(elements, return_inverse=True)
    number = int(place.max()) + 1 if len(place) else 0
    least = weights.new_zeros(number).scatter_reduce(0, place, weights, "amin", include_self=False)
    order = torch.arange(len(place), device=place.device)
    first = order.new_zeros(number).scatter_reduce(0, place, order, "amin", include_self=False)
    return first, least
