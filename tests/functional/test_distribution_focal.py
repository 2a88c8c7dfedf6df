"""Distribution Focal Loss: worked values, and its relation to cross-entropy."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from lit_dense.functional import distribution_focal_loss
from lit_dense.functional.distribution_focal import expected_distances


def sines(bins=16):
    return torch.sin(torch.arange(4.0 * bins, dtype=torch.float64)).view(4, bins)


def test_distribution_focal_loss__worked_values():
    distances = torch.tensor([2.3, 0.0, 14.999, 20.0], dtype=torch.float64)
    values = distribution_focal_loss(sines(), distances, margin=0.01)  # 16 bins and a margin of 0.01: Ultralytics
    torch.testing.assert_close(
        values, torch.tensor([2.428220, 3.171513, 2.978425, 2.742470], dtype=torch.float64), rtol=0, atol=1e-6
    )


def test_distribution_focal_loss__is_the_cross_entropy_of_an_integer_distance():
    logits, distances = sines(17), torch.tensor([0, 3, 7, 15])
    torch.testing.assert_close(
        distribution_focal_loss(logits, distances.double()), F.cross_entropy(logits, distances, reduction="none")
    )
    last = distribution_focal_loss(logits, torch.full((4,), 16.0).double(), margin=0.0)
    torch.testing.assert_close(last, F.cross_entropy(logits, torch.full((4,), 16), reduction="none"))


@given(distance=st.floats(0, 15.9))
def test_distribution_focal_loss__is_least_for_the_distribution_of_the_two_neighbouring_bins(distance):
    bins = torch.arange(17, dtype=torch.float64)
    best = (1 - (bins - distance).abs()).clamp(min=1e-12).log()
    target = torch.tensor(distance, dtype=torch.float64)
    least = distribution_focal_loss(best, target)
    part = distance - math.floor(distance)
    entropy = -sum(p * math.log(p) for p in (part, 1 - part) if p > 0)
    assert float(least) == pytest.approx(entropy, abs=1e-6)
    assert float(expected_distances(best)) == pytest.approx(distance, abs=1e-6)
    for seed in range(3):
        noise = torch.randn(17, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert distribution_focal_loss(best + noise, target) >= least - 1e-9


def test_distribution_focal_loss__a_distance_outside_of_the_bins_becomes_the_nearest_one():
    logits = sines(17)
    below, above = (distribution_focal_loss(logits, torch.full((4,), d).double()) for d in (-3.0, 40.0))
    torch.testing.assert_close(below, -logits.log_softmax(1)[:, 0])
    torch.testing.assert_close(above, distribution_focal_loss(logits, torch.full((4,), 15.9).double()))


def test_distribution_focal_loss__gradients_are_those_of_finite_differences():
    logits = sines(17).requires_grad_()
    distances = torch.tensor([2.3, 0.0, 15.95, -1.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: distribution_focal_loss(x, distances), logits)
    assert torch.autograd.gradcheck(expected_distances, logits)


def test_distribution_focal_loss__no_distributions():
    logits = torch.zeros(0, 17, requires_grad=True)
    values = distribution_focal_loss(logits, torch.zeros(0))
    values.sum().backward()
    assert values.shape == (0,)
    assert logits.grad.shape == (0, 17)


def test_expected_distances__lie_within_the_bins():
    assert expected_distances(torch.zeros(2, 17)).tolist() == [8, 8]
    assert expected_distances(torch.tensor([[1e4, -1e4], [-1e4, 1e4]])).tolist() == [0, 1]
