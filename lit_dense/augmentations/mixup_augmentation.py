"""Mixup of two images (https://arxiv.org/abs/1710.09412)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..core.errors import check_range
from .base import Augmentation, TrainingImages
from .mosaic_augmentation import checked_interval
from .picture import FILL, Picture, cut, fitted, joined, mirrored, moved, resized


def mix(first: Tensor, second: Tensor, ratio: float) -> Tensor:
    """Compute the weighted mean of two images, rounded down.

    Args:
        first: An image, uint8 [3, H, W].
        second: An image of the same size.
        ratio: Weight of the first image, in [0, 1].

    Example:
        >>> mix(torch.tensor([200], dtype=torch.uint8), torch.tensor([101], dtype=torch.uint8), 0.5)
        tensor([150], dtype=torch.uint8)
    """
    return first.float().mul_(ratio).add_(second, alpha=1 - ratio).to(torch.uint8)


class Mixup(Augmentation):
    """Mixes an image with another one; the boxes of both are objects (https://arxiv.org/abs/1710.09412, as in YOLOX).

    The other image is scaled to fit into the first, and by a random factor. It is mirrored with probability 0.5 if the
    transforms have a horizontal flip, and placed at random on ImageNet's mean colour. The loss does not depend on the
    ratio, as in the published detectors.

    Args:
        p: Probability of mixing, in [0, 1].
        alpha: The ratio is drawn from Beta(alpha, alpha): large values give ratios near 0.5. Greater than 0.
        scale: Range of the random factor.
        close_after: Fraction of the run after which no images are mixed, in [0, 1]; 1 for never.

    Raises:
        UsageError: If an argument is out of range.
    """

    num_partners: ClassVar[int] = 1

    def __init__(
        self,
        p: float = 0.5,
        alpha: float = 32.0,
        scale: tuple[float, float] = (0.5, 1.5),
        close_after: float = 0.9,
    ) -> None:
        super().__init__(p, close_after)
        self.alpha = check_range("mixup", "alpha", alpha, 1e-3)
        self.scale = checked_interval("mixup", "scale", scale, 0.01, 10)

    def forward(
        self, picture: Picture, partners: Sequence[int], images: TrainingImages, rng: np.random.Generator
    ) -> Picture:
        """Mix the image with its partner."""
        size = height, width = picture.size
        ratio, scale, mirror = rng.beta(self.alpha, self.alpha), rng.uniform(*self.scale), rng.random() < 0.5
        other = images.picture(partners[0])
        other = resized(other, fitted(other.size, size, scale))
        if mirror and images.flips:
            other = mirrored(other, images.mirrored)
        x, y = (_offset(rng, *sides) for sides in zip((width, height), other.size[::-1], strict=True))
        canvas = torch.tensor(FILL, dtype=torch.uint8)[:, None, None].repeat(1, height, width)
        x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + other.size[1], width), min(y + other.size[0], height)
        canvas[:, y1:y2, x1:x2] = other.image[:, y1 - y : y2 - y, x1 - x : x2 - x]
        boxes, fields = cut(moved(other.boxes, x, y), other.fields, (0, 0, width, height))
        return joined(mix(picture.image, canvas, ratio), [picture, replace(other, boxes=boxes, fields=fields)])


def _offset(rng: np.random.Generator, canvas: int, side: int) -> int:
    """Draw the position of a side on a canvas: inside it, or covering it if the side is longer."""
    low, high = sorted((0, canvas - side))
    return int(rng.integers(low, high + 1))
