"""Repeat-factor sampling, https://arxiv.org/abs/1908.03195."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from ..core.errors import check_range
from .base import ImageSampler

if TYPE_CHECKING:
    from ..data.coco import Bools, CocoData, Ints


def repeat_factors(presence: "Bools", threshold: float) -> npt.NDArray[np.float64]:
    """How often images are to be drawn in an epoch, at least once each.

    Args:
        presence: Whether an image shows a class [I, C].
        threshold: Share of images t below which a class is repeated.

    Returns:
        The largest max(1, sqrt(t / f)) of an image's classes, f being the share of images that show the class; 1 for
        an image without any [I].

    Example:
        >>> presence = np.array([[True, False], [True, True], [True, False], [False, False]])
        >>> repeat_factors(presence, 0.5).round(3).tolist()
        [1.0, 1.414, 1.0, 1.0]
    """
    images, classes = presence.nonzero()
    share = presence.sum(0) / len(presence)
    factors = np.ones(len(presence))
    np.maximum.at(factors, images, np.sqrt(threshold / share[classes]))
    return factors


class RepeatFactorSampler(ImageSampler):
    """Repeats images of rare classes: the repeat factor of an image is that of its rarest class.

    Gupta et al., *LVIS*, https://arxiv.org/abs/1908.03195.

    All epochs have D = ceil(sum of repeat factors) draws. Factors are scaled by D / sum, which is hardly more than 1,
    and rounded at random anew in each epoch, such that an image's mean number of draws is its scaled factor and D stays
    what it is. Each image is drawn at least once; crowd boxes do not count, and an image without other boxes has factor
    1. Where no class is rarer than the threshold this is plain shuffling, of which it warns.

    Args:
        threshold: Share of images below which a class is repeated, in [0, 1]. Default: that of LVIS.

    Raises:
        UsageError: The threshold is out of range.
    """

    def __init__(self, threshold: float = 0.001) -> None:
        super().__init__()
        self.threshold = check_range("repeat_factor", "threshold", threshold, 0, 1)

    def order(self, data: "CocoData", category_ids: "Ints", rng: np.random.Generator) -> "Ints":
        """Each image floor or ceil of its scaled repeat factor times, shuffled [D]."""
        presence = data.presence(category_ids)
        factors = repeat_factors(presence, self.threshold)
        if factors.max() == 1:
            rank_zero_warn(
                f"repeat_factor repeats nothing: no class is in less than a share of {self.threshold:g} of the "
                f"{len(data)} training images{_rarest(presence)}. Raise its threshold."
            )
        # in random order, for else two images side by side, of factor 1.5 each, would never be repeated in one epoch
        images = rng.permutation(len(factors))
        return rng.permutation(np.repeat(images, _round_at_random(factors[images], rng)))


def _round_at_random(values: npt.NDArray[np.float64], rng: np.random.Generator) -> "Ints":
    """Systematic sampling: integers whose means are proportional to the values, and whose sum is always ceil(sum)."""
    sums = values.cumsum()
    total = np.ceil(sums[-1])
    edges = np.floor(sums * (total / sums[-1]) + rng.random())
    edges[-1] = total  # which it is, but for rounding
    counts: Ints = np.diff(edges, prepend=0).astype(np.int64)
    return counts


def _rarest(presence: "Bools") -> str:
    counts = presence.sum(0)
    return f"; the rarest is in {counts[counts > 0].min() / len(presence):.2g}" if counts.any() else ""
