"""Federated loss (https://arxiv.org/abs/2103.07461): the sampling of the classes that a step uses."""

import torch
from torch import Tensor


def federated_classes(present: Tensor, frequencies: Tensor, noise: Tensor, number: int) -> Tensor:
    """Select all present classes, and draw others without replacement by their frequencies.

    Args:
        present: Mask of the classes with objects in the batch, bool [C].
        frequencies: Relative probabilities of the other classes [C]. Classes with 0 are never drawn.
        noise: Uniform random numbers in (0, 1) [C].
        number: Number of classes to select. All present classes are selected, even if there are more.

    Returns:
        Mask of the selected classes, bool [C].

    Example:
        >>> present, frequencies = torch.tensor([True, False, False]), torch.tensor([4.0, 1.0, 0.0])
        >>> federated_classes(present, frequencies, torch.tensor([0.5, 0.5, 0.5]), 3)
        tensor([ True,  True, False])
    """
    # Of exponentially distributed arrival times, class c has the smallest with a probability proportional to its rate,
    # and likewise among the rest. So the order of arrival is a draw without replacement.
    arrival = -torch.log(noise) / frequencies
    arrival = torch.where(frequencies > 0, arrival, float("inf")).masked_fill(present, -1.0)
    order = arrival.argsort(stable=True)
    rank = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device))
    return present | ((rank < number) & (frequencies > 0))
