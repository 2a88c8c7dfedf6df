"""Repeat-factor sampling (https://arxiv.org/abs/1908.03195)."""

import numpy as np
import numpy.typing as npt
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from ..core.array_types import Bools, Ints
from ..core.errors import check_range
from .base import ImageSampler, TrainingSet


def repeat_factors(presence: Bools, threshold: float) -> npt.NDArray[np.float64]:
    """Compute the repeat factor of each image: its mean number of draws per epoch, before rescaling.

    Args:
        presence: Mask of the classes in each image, bool [I, C].
        threshold: Images of classes that occur in a smaller fraction t of the images are repeated.

    Returns:
        The largest ``max(1, sqrt(t / f))`` of the classes of each image, where f is the fraction of images that contain
        the class; 1 for an image without objects [I].

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
    """Repeats images of rare classes; the rarest class of an image determines its repeat factor.

    Gupta et al., *LVIS*, https://arxiv.org/abs/1908.03195.

    All epochs have D draws, the sum of the repeat factors rounded up. The factors are scaled by D / sum, which is close
    to 1, and rounded at random in each epoch. The rounding preserves D, and the mean number of draws of an image is its
    scaled factor. Each image is drawn at least once. Crowd boxes are ignored: an image with only crowd boxes has
    factor 1. If no class is rarer than the threshold, the images are only shuffled, and a warning is shown.

    Args:
        threshold: Classes that occur in a smaller fraction of the images are repeated, in [0, 1]. The default is that
            of LVIS.

    Raises:
        UsageError: If the threshold is out of range.
    """

    def __init__(self, threshold: float = 0.001) -> None:
        super().__init__()
        self.threshold = check_range("repeat_factor", "threshold", threshold, 0, 1)

    def order(self, data: TrainingSet, category_ids: Ints, rng: np.random.Generator) -> Ints:
        """Draw each image as often as its scaled repeat factor, rounded up or down, in random order [D]."""
        presence = data.presence(category_ids)
        factors = repeat_factors(presence, self.threshold)
        if factors.max() == 1:
            rank_zero_warn(
                f"repeat_factor repeats no image: no class is in less than a fraction of {self.threshold:g} of the "
                f"{len(data)} training images{_rarest(presence)}. Raise its threshold."
            )
        # Systematic sampling depends on the order: two neighbours of factor 1.5 would never both be repeated.
        images = rng.permutation(len(factors))
        return rng.permutation(np.repeat(images, _round_at_random(factors[images], rng)))


def _round_at_random(values: npt.NDArray[np.float64], rng: np.random.Generator) -> Ints:
    """Round by systematic sampling: the means are proportional to the values, and the sum is always ceil(sum)."""
    sums = values.cumsum()
    total = np.ceil(sums[-1])
    edges = np.floor(sums * (total / sums[-1]) + rng.random())
    edges[-1] = total  # corrects rounding errors
    counts: Ints = np.diff(edges, prepend=0).astype(np.int64)
    return counts


def _rarest(presence: Bools) -> str:
    """Describe the fraction of images with the rarest class, for the warning; empty without objects."""
    counts = presence.sum(0)
    return f"; the rarest is in {counts[counts > 0].min() / len(presence):.2g}" if counts.any() else ""
