"""Crops of large images around objects of rare classes."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from ..core.array_types import Doubles, Ints
from ..core.errors import check_range
from .base import Augmentation, Objects, TrainingImages
from .picture import Box, Picture, cut, moved


class RareCrop(Augmentation):
    """Crops an image around an object, mostly of a rare class.

    An object of the image is drawn with a probability proportional to the number of objects of its class in the
    training set to the power ``-power``. The crop is placed at random so that it shows the whole object. If the object
    is larger than the crop, the crop lies inside the object. An image without objects is cropped at a random place.
    Boxes are cut as by ``mosaic``: a box of which a tenth or less is left, or 2 pixels or less of a side, becomes an
    ignore region.

    Args:
        size: Side of the crop in pixels, at least 32. A side of the image that is shorter is kept whole.
        p: Probability that an image is cropped, in [0, 1].
        power: Exponent of the class frequencies, at least 0.
        close_after: Fraction of the run after which images are not cropped, in [0, 1]; 1 for never.

    Raises:
        UsageError: If an argument is out of range.
    """

    def __init__(self, size: int = 640, p: float = 1.0, power: float = 0.5, close_after: float = 1.0) -> None:
        super().__init__(p, close_after)
        self.size = int(check_range("rare_crop", "size", size, 32))
        self.power = check_range("rare_crop", "power", power, 0)
        self._class_weights: Doubles = np.zeros(0)

    def receive_objects(self, objects: Objects, labels: Ints) -> None:
        """Count the objects of each class; warn if no image is larger than a crop."""
        sizes = getattr(objects, "sizes", None)
        if sizes is not None and len(sizes) and sizes.max() <= self.size:
            rank_zero_warn(
                f"rare_crop: no training image has a side of more than size={self.size} pixels, so none is cropped; "
                f"the largest has {sizes.max()}. Give a smaller size."
            )
        counts = np.bincount(labels[~objects.iscrowd], minlength=int(labels.max(initial=-1)) + 1)
        # the last entry is that of higher labels, which only mirrored pictures have
        self._class_weights = np.append(np.maximum(counts, 1) ** -self.power, 1.0)

    def forward(
        self, picture: Picture, partners: Sequence[int], images: TrainingImages, rng: np.random.Generator
    ) -> Picture:
        """Crop the image."""
        height, width = picture.size
        if max(height, width) <= self.size:
            return picture
        objects = (picture.fields["iscrowd"] == 0).nonzero().squeeze(1)
        x1, y1, x2, y2 = 0.0, 0.0, float(width), float(height)
        if len(objects):
            labels = picture.fields["labels"][objects].numpy()
            weights = self._class_weights[np.minimum(labels, len(self._class_weights) - 1)]
            row = objects[rng.choice(len(objects), p=weights / weights.sum())]
            x1, y1, x2, y2 = picture.boxes[row].tolist()
        x, y = crop_start(x1, x2, width, self.size, rng), crop_start(y1, y2, height, self.size, rng)
        return cropped(picture, (x, y, min(x + self.size, width), min(y + self.size, height)))


def crop_start(low: float, high: float, length: int, size: int, rng: np.random.Generator) -> int:
    """Draw the first pixel of a crop along one side of an image, so that it shows an object.

    Args:
        low: Start of the object in pixels.
        high: End of the object in pixels.
        length: Length of the image's side.
        size: Length of the crop. If the object is longer, the crop lies inside it.
        rng: The random numbers.
    """
    starts = sorted((int(np.floor(low)), int(np.ceil(high)) - size))
    first, last = (min(max(start, 0), max(length - size, 0)) for start in starts)
    return int(rng.integers(first, last + 1))


def cropped(picture: Picture, window: Box) -> Picture:
    """Return a part of an image with its boxes, cut at its border.

    Args:
        picture: The image and its boxes.
        window: The part that is kept.
    """
    x1, y1, x2, y2 = window
    boxes, fields = cut(picture.boxes, picture.fields, window)
    # A copy, because a view is sent from a worker with the pixels of the whole image.
    image = picture.image[:, y1:y2, x1:x2].clone()
    absent = _absent(picture, fields["labels"])
    return replace(picture, image=image, boxes=moved(boxes, -x1, -y1), fields=fields, absent=absent)


def _absent(picture: Picture, shown: Tensor) -> Tensor | None:
    """Return the classes known to be absent from a crop: also those of which all objects lie outside."""
    if picture.absent is None or picture.partial is None:
        return None
    labels = picture.fields["labels"].unique()
    outside = labels[~torch.isin(labels, torch.cat([shown, picture.partial]))]
    absent: Tensor = torch.cat([picture.absent, outside]).unique()
    return absent
