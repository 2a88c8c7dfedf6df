"""Statistics of differences between runs: noise over validation images, and noise over seeds.

Images: a paired bootstrap (Efron, https://doi.org/10.1214/aos/1176344552). Both runs are evaluated on the same
resamples of the validation images, and the interval is that of their difference. Seeds: Student's t of the differences
of equal seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Verdict = Literal["better", "worse", "within the noise", "one seed", "not known"]

RESAMPLES = 1000
LEVEL = 0.95
LEAST_DIFFERENCE = 0.0005
"""Smaller differences are shown as 0.000. A method that hardly changes AP has a small spread too."""

T_QUANTILES = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""Two-sided 95 % quantiles of Student's t, in standard errors, for 1, 2, ... degrees of freedom. The last value is used
for more degrees of freedom. With few seeds the standard error itself is uncertain, so two seeds need 12.7."""


@dataclass(frozen=True)
class Spread:
    """The values of a metric of one configuration over its seeds.

    Args:
        values: The value of each seed.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return float(np.mean(self.values))

    @property
    def low(self) -> float:
        """The smallest value."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The largest value."""
        return max(self.values)


@dataclass(frozen=True)
class Difference:
    """The difference of a metric between a run and the baseline.

    Args:
        mean: Mean over the seeds that both have.
        low: Lower end of the 95 % interval over validation images.
        high: Upper end of the interval.
        per_seed: The difference of each seed.
        verdict: The verdict of :func:`judge`.
    """

    mean: float
    low: float
    high: float
    per_seed: tuple[float, ...]
    verdict: Verdict


def draw_counts(num_images: int, samples: int = RESAMPLES, seed: int = 0) -> Array:
    """Draw bootstrap resamples: the number of times each resample contains each image, int64 [S, I].

    Args:
        num_images: Number of images I; each resample has the same size.
        samples: Number of resamples S.
        seed: Equal seeds draw equal samples.
    """
    generator = np.random.default_rng(seed)
    return generator.multinomial(num_images, np.full(num_images, 1 / num_images), size=samples)


def align_counts(counts: Array, image_ids: Array, order: Array) -> Array:
    """Reorder the columns of counts to another order of the images.

    Args:
        counts: Resamples of the images of ``order`` [S, I].
        image_ids: Image ids in the new order [I].
        order: Image ids of the columns of ``counts``, ascending [I].

    Raises:
        ValueError: If they are not the same images.
    """
    if not np.array_equal(np.sort(image_ids), order):
        raise ValueError("the runs were not evaluated on the same images")
    return counts[:, np.searchsorted(order, image_ids)]


def compare(
    run: Mapping[int, float], base: Mapping[int, float], samples: Mapping[int, Array], base_samples: Mapping[int, Array]
) -> Difference | None:
    """Compare a run with the baseline over the seeds that both have.

    Args:
        run: The metric of the run by seed.
        base: The metric of the baseline by seed.
        samples: The metric of each resample of the validation images by seed, -1 if it does not exist [S].
        base_samples: The same of the baseline, for the same resamples.

    Returns:
        The difference; None if they have no seed in common.
    """
    seeds = sorted(run.keys() & base.keys())
    if not seeds:
        return None
    per_seed = tuple(run[seed] - base[seed] for seed in seeds)
    paired = seeds and all(seed in samples and seed in base_samples for seed in seeds)
    if not paired:
        return Difference(float(np.mean(per_seed)), np.nan, np.nan, per_seed, "not known")
    both = [_existing(samples[seed]) - _existing(base_samples[seed]) for seed in seeds]
    low, high = interval(np.mean(both, axis=0))
    return Difference(float(np.mean(per_seed)), low, high, per_seed, judge(per_seed, low, high))


def _existing(values: Array) -> Array:
    return np.where(values > -1, values, np.nan)


def interval(values: Array) -> tuple[float, float]:
    """Return the ends of the middle 95 % of values; NaN values are ignored."""
    known = values[~np.isnan(values)]
    if not len(known):
        return np.nan, np.nan
    rest = (1 - LEVEL) / 2
    low, high = np.quantile(known, (rest, 1 - rest))
    return float(low), float(high)


def judge(per_seed: Sequence[float], low: float, high: float) -> Verdict:
    """Return the verdict on a difference.

    Args:
        per_seed: The difference of each seed.
        low: Lower end of its interval over images.
        high: Upper end of the interval.

    Returns:
        ``not known`` without an interval. ``within the noise`` if the interval contains 0, if the spread over several
        seeds explains their mean, or if the mean is smaller than :data:`LEAST_DIFFERENCE`. ``one seed`` if the interval
        excludes 0 but there is only one seed. Otherwise ``better`` or ``worse``.
    """
    if np.isnan(low) or np.isnan(high):
        return "not known"
    mean = float(np.mean(per_seed))
    if low <= 0 <= high or abs(mean) < LEAST_DIFFERENCE:
        return "within the noise"
    if len(per_seed) < 2:
        return "one seed"
    error = float(np.std(per_seed, ddof=1) / np.sqrt(len(per_seed)))
    allowed = T_QUANTILES[min(len(per_seed) - 1, len(T_QUANTILES)) - 1]
    if abs(mean) <= allowed * error or (mean > 0) != (low > 0):
        return "within the noise"
    return "better" if mean > 0 else "worse"


def thirds(counts: Sequence[int]) -> dict[str, list[int]]:
    """Split the labels into frequent, common and rare classes: thirds by their number of training boxes.

    Args:
        counts: Boxes of each class; with fewer than three classes there are no groups.
    """
    if len(counts) < 3:
        return {}
    order = sorted(range(len(counts)), key=lambda label: -counts[label])
    third = len(order) // 3
    return {"frequent": order[:third], "common": order[third:-third], "rare": order[-third:]}


def mean_of(values: Array, labels: Sequence[int]) -> float:
    """Return the mean of a metric over the classes that have one; NaN if none has."""
    known = [float(values[label]) for label in labels if values[label] > -1]
    return float(np.mean(known)) if known else float("nan")
