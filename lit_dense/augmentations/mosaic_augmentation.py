"""Mosaic: four images in one (https://arxiv.org/abs/2004.10934)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch

from ..core.errors import UsageError, check_range
from .base import Augmentation, TrainingImages
from .picture import FILL, Box, Picture, cut, fitted, joined, moved, resized


def mosaic_places(
    centre: tuple[int, int], canvas: tuple[int, int], sizes: Sequence[tuple[int, int]]
) -> list[tuple[Box, Box]]:
    """Place four images on a canvas so that each has one corner at the centre.

    Args:
        centre: x and y at which the images meet.
        canvas: Height and width of the canvas.
        sizes: Height and width of the images: top left, top right, bottom left, bottom right.

    Returns:
        For each image its visible part in pixels of the canvas, and the same part in pixels of the image. A part that
        lies outside the canvas is empty.

    Example:
        >>> mosaic_places((70, 50), (128, 128), [(48, 64)] * 4)[0]
        ((6, 2, 70, 50), (0, 0, 64, 48))
    """
    (x, y), places = centre, []
    for index, (height, width) in enumerate(sizes):
        left, top = (x - width, x)[index % 2], (y - height, y)[index // 2]
        x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + width, canvas[1]), min(top + height, canvas[0])
        x2, y2 = max(x1, x2), max(y1, y2)
        places.append(((x1, y1, x2, y2), (x1 - left, y1 - top, x2 - left, y2 - top)))
    return places


class Mosaic(Augmentation):
    """Replaces an image by four images that meet at a random point (YOLOv4, https://arxiv.org/abs/2004.10934).

    The result has the size of the first image. Each image is scaled to fit into this size, and by a random factor. The
    other three images are partners. The image itself is at the top left. Places that no image reaches have ImageNet's
    mean colour. Boxes are clipped. A box of which a tenth or less is left, or 2 pixels or less of a side, becomes an
    ignore region.

    Args:
        p: Probability of a mosaic, in [0, 1].
        scale: Range of the random factor: 0.5 shows most of all four images, 1 a part of each in its usual size.
        centre: Range of the point at which the images meet, as fractions of width and height, in [0, 1].
        close_after: Fraction of the run after which no mosaics are made, in [0, 1]; 1 for never.

    Raises:
        UsageError: If an argument is out of range.
    """

    num_partners: ClassVar[int] = 3

    def __init__(
        self,
        p: float = 0.5,
        scale: tuple[float, float] = (0.5, 1.0),
        centre: tuple[float, float] = (0.25, 0.75),
        close_after: float = 0.9,
    ) -> None:
        super().__init__(p, close_after)
        self.scale = checked_interval("mosaic", "scale", scale, 0.01, 10)
        self.centre = checked_interval("mosaic", "centre", centre, 0, 1)

    def forward(
        self, picture: Picture, partners: Sequence[int], images: TrainingImages, rng: np.random.Generator
    ) -> Picture:
        """Combine the image with three partners."""
        height, width = picture.size
        scale, x, y = rng.uniform(*self.scale), rng.uniform(*self.centre), rng.uniform(*self.centre)
        centre = round(width * x), round(height * y)
        four = [picture, *(images.picture(index) for index in partners)]
        four = [resized(one, fitted(one.size, (height, width), scale)) for one in four]
        canvas = torch.tensor(FILL, dtype=torch.uint8)[:, None, None].repeat(1, height, width)
        parts = []
        for one, (place, source) in zip(
            four, mosaic_places(centre, (height, width), [one.size for one in four]), strict=True
        ):
            (x1, y1, x2, y2), (left, top, right, bottom) = place, source
            canvas[:, y1:y2, x1:x2] = one.image[:, top:bottom, left:right]
            boxes, fields = cut(moved(one.boxes, x1 - left, y1 - top), one.fields, place)
            parts.append(replace(one, boxes=boxes, fields=fields))
        return joined(canvas, parts)


def checked_interval(owner: str, name: str, values: Sequence[float], low: float, high: float) -> tuple[float, float]:
    """Return an argument that is an interval, if its ends are in order and within limits.

    Args:
        owner: Name of the class that has the argument, for the message.
        name: Name of the argument.
        values: The ends.
        low: Smallest accepted end.
        high: Largest accepted end.

    Raises:
        UsageError: If it is no such interval.
    """
    is_pair = isinstance(values, Sequence) and not isinstance(values, str) and len(values) == 2
    if not is_pair or values[0] > values[1]:
        raise UsageError(f"{owner}: {name} must be two numbers, the smaller first, not {values!r}.")
    return check_range(owner, name, values[0], low, high), check_range(owner, name, values[1], low, high)
