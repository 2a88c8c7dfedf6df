"""Probabilistic anchor assignment, PAA (https://arxiv.org/abs/2007.08103)."""

from typing import NamedTuple

import torch
from torch import Tensor

ITERATIONS, TOLERANCE, LEAST_VARIANCE = 100, 1e-3, 1e-6
CHECKED_EVERY = 10
"""Iterations between two looks at the convergence, each of which synchronises the device."""


class Mixture(NamedTuple):
    """Mixtures of two Gaussians, one mixture for each row.

    Args:
        means: Means of the components [G, 2].
        is_first: Whether a value belongs to the first component, which started at the smallest value [G, N].
        log_density: Logarithm of the density of the mixture at each value [G, N].
    """

    means: Tensor
    is_first: Tensor
    log_density: Tensor


def fit_mixtures(values: Tensor, counts: Tensor) -> Mixture:
    """Fit a mixture of two Gaussians to each row by expectation maximisation (PAA, https://arxiv.org/abs/2007.08103).

    Start and end are those of the authors' code, which calls scikit-learn: weights 0.5, means at the extremes,
    variances 1; a row stops after a change of its mean log-likelihood below 1e-3. For losses of about 0.1 to 1, this is
    after a few iterations, with variances that are still far from the best ones.

    Args:
        values: Values of each row in ascending order, float64; entries from ``counts`` on are not used [G, N].
        counts: Number of values of each row, at least 1 [G].
    """
    used = torch.arange(values.shape[1], device=values.device) < counts.unsqueeze(1)
    x, number = torch.where(used, values, 0.0).unsqueeze(2), counts.to(values.dtype)
    last = values.gather(1, counts.unsqueeze(1) - 1).squeeze(1)
    means = torch.stack([values[:, 0], last], 1)
    weights, variances = torch.full_like(means, 0.5), torch.ones_like(means)
    before = torch.full_like(number, -torch.inf)
    done = torch.zeros_like(counts, dtype=torch.bool)
    for iteration in range(ITERATIONS):
        logs = _log_terms(x, means, variances, weights)
        density = logs.logsumexp(2)
        shares = (logs - density.unsqueeze(2)).exp() * used.unsqueeze(2)
        sums = shares.sum(1) + 10 * torch.finfo(values.dtype).eps
        new_means = (shares * x).sum(1) / sums
        new_variances = (shares * (x - new_means.unsqueeze(1)).square()).sum(1) / sums + LEAST_VARIANCE
        new_weights = sums / number.unsqueeze(1)
        new_weights = new_weights / new_weights.sum(1, keepdim=True)
        keep = done.unsqueeze(1)
        means, variances = torch.where(keep, means, new_means), torch.where(keep, variances, new_variances)
        weights = torch.where(keep, weights, new_weights)
        likelihood = (density * used).sum(1) / number
        done = done | ((likelihood - before).abs() < TOLERANCE)
        before = likelihood
        if (iteration + 1) % CHECKED_EVERY == 0 and bool(done.all()):
            break
    logs = _log_terms(x, means, variances, weights)
    return Mixture(means, (logs[..., 0] >= logs[..., 1]) & used, logs.logsumexp(2))


def _log_terms(x: Tensor, means: Tensor, variances: Tensor, weights: Tensor) -> Tensor:
    """Compute the logarithm of weight times density of each component [G, N, 2]."""
    means, variances, weights = means.unsqueeze(1), variances.unsqueeze(1), weights.unsqueeze(1)
    return weights.log() - 0.5 * ((2 * torch.pi * variances).log() + (x - means).square() / variances)


def separate_by_mixture(values: Tensor, counts: Tensor) -> Tensor:
    """Select the candidates up to the most likely of the better component (PAA, https://arxiv.org/abs/2007.08103).

    This is scheme c of the paper's code. If no value belongs to the better component, all are selected. Of equal
    densities the first counts, so that of equal losses only the first candidate is selected.

    Args:
        values: Losses of the candidates of each ground truth in ascending order; entries from ``counts`` on are not
            used [G, N].
        counts: Number of candidates, at least 1 [G].

    Returns:
        Number of positives of each ground truth, at least 1 [G].

    Example:
        >>> losses = torch.tensor([[0.10, 0.12, 0.15, 0.20, 0.22, 0.60, 0.70, 0.75, 0.90]])
        >>> separate_by_mixture(losses, torch.tensor([9]))
        tensor([5])
    """
    mixture = fit_mixtures(values.double(), counts)
    density = torch.where(mixture.is_first, mixture.log_density, -torch.inf)
    return torch.where(mixture.is_first.any(1), density.argmax(1) + 1, counts)


def first_of_groups(losses: Tensor, group: Tensor, number: int) -> Tensor:
    """Mark the smallest losses of each group; of equal losses, the first (PAA, https://arxiv.org/abs/2007.08103).

    Args:
        losses: Losses of the candidates [N].
        group: Group of each candidate, such as a ground truth on a pyramid level [N].
        number: Number of candidates to mark in each group.

    Returns:
        Whether a candidate is marked [N].
    """
    order, rank = ranks_in_groups(losses, group)
    return torch.zeros_like(group, dtype=torch.bool).index_put((order,), rank < number)


def ranks_in_groups(losses: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Sort candidates by group, then loss, then index (PAA, https://arxiv.org/abs/2007.08103).

    Args:
        losses: Losses of the candidates [N].
        group: Group of each candidate [N].

    Returns:
        Indices of the candidates in the new order [N], and their rank within the group, from 0 [N].
    """
    order = losses.argsort(stable=True)
    order = order[group[order].argsort(stable=True)]
    sorted_group = group[order]
    return order, torch.arange(len(order), device=order.device) - torch.searchsorted(sorted_group, sorted_group)
