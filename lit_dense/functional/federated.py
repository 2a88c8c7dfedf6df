"""Federated loss (https://arxiv.org/abs/2103.07461): each step heeds some of the classes."""

import torch
from torch import Tensor


def federated_classes(present: Tensor, frequencies: Tensor, noise: Tensor, number: int) -> Tensor:
    """Draw classes without replacement: those that are present, and others by their frequencies until there are enough.

    Args:
        present: Whether a class is among the batch's objects [C].
        frequencies: Chances of the others; a class with 0 is never drawn [C].
        noise: Uniform random numbers in (0, 1) [C].
        number: How many classes to heed; all present ones are, even if they are more.

    Returns:
        Whether a class is heeded [C].

    Example:
        >>> present, frequencies = torch.tensor([True, False, False]), torch.tensor([4.0, 1.0, 0.0])
        >>> federated_classes(present, frequencies, torch.tensor([0.5, 0.5, 0.5]), 3)
        tensor([ True,  True, False])
    """
    # the smallest of exponential times is class c with probability proportional to its rate, and so is each next one
    arrival = -torch.log(noise) / frequencies
    arrival = torch.where(frequencies > 0, arrival, float("inf")).masked_fill(present, -1.0)
    order = arrival.argsort(stable=True)
    rank = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device))
    return present | ((rank < number) & (frequencies > 0))
