"""Repeat-factor sampling (https://arxiv.org/abs/1908.03195), also by instances (https://arxiv.org/abs/2305.08069)."""

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from ..core.array_types import Bools, Doubles, Ints
from ..core.errors import check_choice, check_range
from .base import ImageSampler, TrainingSet

Method = Literal["rfs", "irfs", "e_irfs"]
"""Formula of the repeat factors."""

SLOPE, LARGEST = 2.0, 10.0
"""E-IRFS: alpha of the paper, and the largest factor. The paper has no limit: its formula gives 7 for a class of
frequency 0.0001 and 550 for one of frequency 0.00001."""


def class_factors(
    image_frequency: Doubles, instance_frequency: Doubles, threshold: float, method: Method = "rfs"
) -> Doubles:
    """Compute the repeat factor of each class.

    Args:
        image_frequency: Fraction of the images that contain the class, above 0 [C].
        instance_frequency: Fraction of the boxes that belong to the class, above 0 [C].
        threshold: The threshold t.
        method: ``rfs`` for ``max(1, sqrt(t / f))`` with the image frequency f; ``irfs`` for the same with the geometric
            mean of both frequencies; ``e_irfs`` for ``exp(2 sqrt(t / f))`` with this mean, at most 10.

    Example:
        >>> image, instance = np.array([0.9, 0.03, 0.002]), np.array([50000, 900, 20]) / 50920
        >>> class_factors(image, instance, 0.001, "irfs").round(4).tolist()
        [1.0, 1.0, 1.0622]
        >>> class_factors(image, instance, 0.0001, "e_irfs").round(4).tolist()
        [1.0208, 1.1409, 1.9577]
    """
    frequency = image_frequency if method == "rfs" else np.sqrt(image_frequency * instance_frequency)
    root = np.sqrt(threshold / frequency)
    return np.exp(SLOPE * root).clip(max=LARGEST) if method == "e_irfs" else np.maximum(root, 1)


def repeat_factors(presence: Bools, threshold: float, instances: Ints | None = None, method: Method = "rfs") -> Doubles:
    """Compute the repeat factor of each image: its mean number of draws per epoch, before rescaling.

    Args:
        presence: Mask of the classes in each image, bool [I, C].
        threshold: Images of classes that occur in a smaller fraction t of the images are repeated.
        instances: Number of boxes of each class [C]; not used by ``rfs``.
        method: See :func:`class_factors`.

    Returns:
        The largest factor of the classes of each image; 1 for an image without objects [I].

    Example:
        >>> presence = np.array([[True, False], [True, True], [True, False], [False, False]])
        >>> repeat_factors(presence, 0.5).round(3).tolist()
        [1.0, 1.414, 1.0, 1.0]
    """
    images, classes = presence.nonzero()
    counts = presence.sum(0)
    boxes = counts if instances is None else instances
    shown = counts > 0
    of_class = np.ones(len(counts))
    of_class[shown] = class_factors(counts[shown] / len(presence), boxes[shown] / boxes.sum(), threshold, method)
    factors = np.ones(len(presence))
    np.maximum.at(factors, images, of_class[classes])
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
            of LVIS and of the paper of ``irfs``; the paper of ``e_irfs`` has 0.0001.
        method: ``rfs`` uses the fraction of images with a class. ``irfs`` (https://arxiv.org/abs/2305.08069) uses the
            geometric mean of this fraction and of the class's fraction of all boxes. ``e_irfs``
            (https://arxiv.org/abs/2503.21893) uses this mean with an exponential formula.

    Raises:
        UsageError: If the threshold is out of range, or the method is unknown.
    """

    def __init__(self, threshold: float = 0.001, method: Method = "rfs") -> None:
        super().__init__()
        self.threshold = check_range("repeat_factor", "threshold", threshold, 0, 1)
        self.method: Method = check_choice("repeat_factor", "method", method, get_args(Method))

    def order(self, data: TrainingSet, category_ids: Ints, rng: np.random.Generator) -> Ints:
        """Draw each image as often as its scaled repeat factor, rounded up or down, in random order [D]."""
        presence = data.presence(category_ids)
        instances = None if self.method == "rfs" else data.class_counts(category_ids).instances.numpy()
        factors = repeat_factors(presence, self.threshold, instances, self.method)
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
