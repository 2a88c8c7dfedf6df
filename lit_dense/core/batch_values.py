"""Checks of the values of a batch; each synchronises the device."""

import warnings
from collections.abc import Sequence

from torch import Tensor

from .errors import UsageError


def warn_of_range(images: Sequence[Tensor]) -> None:
    """Warn about float images with values outside [0, 1], which is the range that the detector expects.

    Args:
        images: Images [C, H, W].
    """
    floats = [i for i in images if i.is_floating_point() and i.numel()]
    low, high = min((float(i.min()) for i in floats), default=0.0), max((float(i.max()) for i in floats), default=0.0)
    if high > 2:
        warnings.warn(
            f"Float images must lie in [0, 1], and this one reaches {high:g}: give uint8, or divide by 255.",
            stacklevel=2,
        )
    elif low < -0.1:
        warnings.warn(
            f"Float images must lie in [0, 1], and this one has {low:g}: the detector normalises itself.", stacklevel=2
        )


def seem_normalised(boxes: Tensor) -> Tensor:
    """Return whether all boxes [N, 4] lie between 0 and 1, and not on whole pixels; a tensor of no dimension."""
    return (boxes <= 1).all() & (boxes != boxes.round()).any()


def normalised_error(boxes: Tensor) -> UsageError:
    """Return the error about boxes that seem to be fractions of the image [N, 4]."""
    return UsageError(
        f"All boxes of the batch lie between 0 and 1, as normalised boxes do; the first is {boxes[0].tolist()}. Boxes "
        "are in pixels: multiply x by the image's width and y by its height."
    )
