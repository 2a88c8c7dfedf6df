"""Checks of the arguments of a network, before it is built."""

import operator
from collections.abc import Sequence
from typing import Any

from ..core.errors import UsageError, check_range
from .optimization import OWNER


def check_network(
    num_classes: Any, fpn_channels: Any, head_convs: Any, sizes: Sequence[Any], anchor_sizes: Any, aspect_ratios: Any
) -> None:
    """Check the numbers that describe a network.

    Args:
        num_classes: Number of classes; None if it is not known yet.
        fpn_channels: Channels of the feature pyramid.
        head_convs: Convolutions of the head.
        sizes: ``min_size``, one number or several, and ``max_size``; None for the default.
        anchor_sizes: Anchor sizes of each level; None for the default.
        aspect_ratios: Aspect ratios of the anchors.

    Raises:
        UsageError: If one of them has another type or is out of range.
    """
    if num_classes is not None:
        _whole("num_classes", num_classes, 1)
    _whole("fpn_channels", fpn_channels, 1)
    _whole("head_convs", head_convs, 0)
    for name, size in zip(("min_size", "max_size"), sizes, strict=True):
        for one in size if isinstance(size, list | tuple) and name == "min_size" else [size]:
            if one is not None:
                _whole(name, one, 1)
    if anchor_sizes is not None:
        _numbers("anchor_sizes", anchor_sizes, "a list of lists of numbers, one for each level", nested=True)
    _numbers("aspect_ratios", aspect_ratios, "a list of numbers")


def _whole(name: str, value: Any, low: int) -> None:
    try:
        operator.index(value)
    except TypeError as error:
        raise UsageError(f"{OWNER}: {name} must be a whole number, not {value!r}.") from error
    check_range(OWNER, name, value, low)


def _numbers(name: str, values: Any, expected: str, nested: bool = False) -> None:
    """Check a sequence of positive numbers, or of sequences of them."""
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise UsageError(f"{OWNER}: {name} must be {expected}, not {values!r}.")
    for one in values:
        if nested:
            _numbers(name, one, expected)
        elif isinstance(one, bool | str | Sequence) or check_range(OWNER, name, one, 0) == 0:
            raise UsageError(f"{OWNER}: {name} must be {expected} above 0, not {values!r}.")
