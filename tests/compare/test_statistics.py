"""Intervals and verdicts against hand-worked values and simulated runs that do not differ."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_dense.compare.statistics import (
    T_QUANTILES,
    Spread,
    align_counts,
    compare,
    draw_counts,
    interval,
    judge,
    mean_of,
    thirds,
)


def test_draw_counts__a_resample_has_as_many_images_as_there_are():
    counts = draw_counts(7, samples=100)
    assert counts.shape == (100, 7)
    assert (counts.sum(1) == 7).all()
    assert np.array_equal(counts, draw_counts(7, samples=100))
    assert not np.array_equal(counts, draw_counts(7, samples=100, seed=1))


def test_align_counts__an_image_keeps_its_count_wherever_it_stands():
    counts = np.array([[1, 0, 2], [0, 3, 0]])
    assert align_counts(counts, np.array([9, 5, 7]), np.array([5, 7, 9])).tolist() == [[2, 1, 0], [0, 0, 3]]
    with pytest.raises(ValueError, match="same images"):
        align_counts(counts, np.array([9, 5, 8]), np.array([5, 7, 9]))


def test_interval__is_the_middle_95_percent():
    low, high = interval(np.arange(1001, dtype=float))
    assert (low, high) == pytest.approx((25.0, 975.0))
    assert interval(np.array([np.nan, 1.0, 1.0])) == (1.0, 1.0)
    assert np.isnan(interval(np.array([np.nan]))).all()


def test_compare__difference_of_hand_worked_runs():
    run, base = {0: 0.5, 1: 0.7, 5: 0.9}, {0: 0.4, 1: 0.4, 2: 0.1}  # seeds 0 and 1 in common
    samples = {0: np.array([0.5, 0.6, -1.0]), 1: np.array([0.7, 0.8, 0.9]), 5: np.zeros(3)}
    base_samples = {0: np.array([0.4, 0.4, 0.1]), 1: np.array([0.4, 0.5, 0.1]), 2: np.zeros(3)}
    found = compare(run, base, samples, base_samples)
    assert found.mean == pytest.approx(0.2)
    assert found.per_seed == pytest.approx((0.1, 0.3))
    assert (found.low, found.high) == pytest.approx((0.20125, 0.24875))  # of .2 and .25; the third does not exist
    assert found.verdict == "within the noise"  # two standard errors, where two seeds need 12.7
    assert compare({0: 0.5}, {1: 0.5}, {}, {}) is None
    assert compare({0: 0.5}, {0: 0.4}, {}, {}).verdict == "not known"


@pytest.mark.parametrize(
    ("per_seed", "low", "high", "verdict"),
    [
        ((0.1, 0.1001, 0.0999), 0.05, 0.15, "better"),
        ((-0.1, -0.1001, -0.0999), -0.15, -0.05, "worse"),
        ((0.1, 0.1001, 0.0999), -0.01, 0.15, "within the noise"),  # the images explain it
        ((0.0, 0.1, 0.2), 0.05, 0.15, "within the noise"),  # the seeds do: 1.7 standard errors
        ((0.1, 0.14, 0.06), 0.05, 0.15, "better"),  # mean .1, error .0231: 4.33 of them, just over 4.303
        ((0.1, 0.141, 0.059), 0.05, 0.15, "within the noise"),  # 4.22 of them
        ((-4e-5, -4.1e-5, -3.9e-5), -6e-5, -2e-5, "within the noise"),  # sure, but nothing
        ((0.1,), 0.05, 0.15, "one seed"),
        ((0.1,), -0.05, 0.15, "within the noise"),
        ((0.1, 0.1), np.nan, np.nan, "not known"),
    ],
)
def test_judge__verdicts(per_seed, low, high, verdict):
    assert judge(per_seed, low, high) == verdict


def test_t_quantiles__are_those_of_students_t():
    """Against the distribution itself, simulated: a normal over the root of a chi-square by its degrees of freedom."""
    generator = np.random.default_rng(0)
    for freedom in (1, 2, 5, 30):
        t = generator.standard_normal(400_000) / np.sqrt(generator.chisquare(freedom, 400_000) / freedom)
        assert np.mean(np.abs(t) <= T_QUANTILES[freedom - 1]) == pytest.approx(0.95, abs=0.002)


def simulate(generator, seeds, spread, true_difference=0.0, num_images=60, num_samples=200):
    """A difference of two runs whose number is a mean over images, with a spread over seeds."""
    hardness = generator.standard_normal(num_images)
    values, samples = [], []
    counts = generator.multinomial(num_images, np.full(num_images, 1 / num_images), size=num_samples) / num_images
    for shift in (true_difference, 0.0):
        of_images = {
            seed: hardness + generator.standard_normal(num_images) + spread * generator.standard_normal() + shift
            for seed in range(seeds)
        }
        values.append({seed: float(per_image.mean()) for seed, per_image in of_images.items()})
        samples.append({seed: counts @ per_image + 10 for seed, per_image in of_images.items()})  # -1 would not exist
    return compare(*values, *samples)


def test_compare__the_interval_over_images_holds_the_truth_in_about_95_of_100_cases():
    generator = np.random.default_rng(1)
    found = [simulate(generator, seeds=1, spread=0.0) for _ in range(600)]
    assert 0.91 < np.mean([d.low <= 0 <= d.high for d in found]) < 0.975


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.0, 0.3, 3.0])
def test_compare__equal_runs_are_within_the_noise(seeds, spread):
    """Also where the spread over seeds is far larger than that over images, which the interval does not see."""
    generator = np.random.default_rng(2)
    found = [simulate(generator, seeds, spread).verdict for _ in range(400)]
    assert np.mean([verdict == "within the noise" for verdict in found]) > 0.93


def test_compare__a_large_difference_is_found():
    generator = np.random.default_rng(3)
    found = [simulate(generator, 3, spread=0.1, true_difference=2.0).verdict for _ in range(50)]
    assert np.mean([verdict == "better" for verdict in found]) > 0.9


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=6), st.floats(-1, 1), st.floats(0, 1))
def test_judge__swapping_the_runs_swaps_the_verdict(per_seed, low, width):
    other = {"better": "worse", "worse": "better"}
    verdict = judge(per_seed, low, low + width)
    assert judge([-d for d in per_seed], -low - width, -low) == other.get(verdict, verdict)


def test_spread__worked_values():
    spread = Spread((0.1, 0.3))
    assert (spread.mean, spread.low, spread.high) == pytest.approx((0.2, 0.1, 0.3))


def test_thirds__of_the_classes():
    assert thirds([5, 100, 7, 50, 1, 2, 3]) == {"frequent": [1, 3], "common": [2, 0, 6], "rare": [5, 4]}
    assert thirds([5, 1]) == {}
    assert mean_of(np.array([0.5, -1.0, 0.3]), [0, 1, 2]) == pytest.approx(0.4)
    assert np.isnan(mean_of(np.array([-1.0]), [0]))
