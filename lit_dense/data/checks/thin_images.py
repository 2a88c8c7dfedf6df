"""Checks for images so thin that scaling leaves less than a pixel of their shorter side."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ...core.batch_format import image_name
from ...core.errors import UsageError


def vanishes(height: Any, width: Any, max_size: int) -> npt.NDArray[np.bool_]:
    """Return whether scaling the longer side of an image to ``max_size`` leaves less than a pixel of the other.

    Args:
        height: Height of one or many images, in pixels.
        width: Width of one or many images, in pixels.
        max_size: The model's largest length of the longer side, in pixels.
    """
    short, long = np.minimum(height, width), np.maximum(height, width)
    scale = (np.float32(max_size) / np.asarray(long, np.float32)).astype(np.float64)  # rounded as torchvision does
    return np.asarray(np.floor(short * scale) < 1)


def check_sizes(images: Sequence[Tensor], targets: Sequence[dict[str, Any]], max_size: int) -> None:
    """Check that no image of a batch vanishes when it is scaled.

    Args:
        images: Images [3, H, W].
        targets: Targets of the images, which name the image in the message.
        max_size: The model's largest length of the longer side, in pixels.

    Raises:
        UsageError: If an image vanishes.
    """
    for index, (image, target) in enumerate(zip(images, targets, strict=False)):
        if vanishes(image.shape[-2], image.shape[-1], max_size):
            raise _too_thin(image_name(target, index), image.shape[-2], image.shape[-1], max_size)


def check_all_sizes(splits: Iterable[Any], max_size: int) -> None:
    """Check that no image of a data module vanishes, before any is loaded.

    Args:
        splits: Splits with ``image_ids``, ``file_names`` and ``sizes`` (height and width, [I, 2]) of their I images.
        max_size: The model's largest length of the longer side, in pixels.

    Raises:
        UsageError: If an image vanishes.
    """
    for split in splits:
        for index in np.flatnonzero(vanishes(split.sizes[:, 0], split.sizes[:, 1], max_size))[:1]:
            name = f"image {split.image_ids[index]} ({split.file_names[index]})"
            raise _too_thin(name, int(split.sizes[index, 0]), int(split.sizes[index, 1]), max_size)


def _too_thin(name: str, height: int, width: int, max_size: int) -> UsageError:
    needed = -(-max(height, width) // min(height, width))
    return UsageError(
        f"{name[0].upper()}{name[1:]} is {width} x {height} pixels: scaling it to max_size={max_size} leaves less than "
        f"a pixel. Cut it into tiles, remove it from the data, or raise model.max_size to {needed} or more."
    )
