"""Augmentation of images and boxes with torchvision's v2 transforms."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torchvision.transforms import v2

MEAN_COLOUR = (124, 116, 104)  # ImageNet's mean; normalisation maps it to 0, the value of the detector's padding


def default_train_transforms() -> list[v2.Transform]:
    """Return the default augmentation: flips, moderate scale jitter and moderate colour jitter.

    The scale jitter scales the content and keeps the canvas size. A detector resizes every image to one size, which
    would undo a jitter of the canvas size.
    """
    scale = v2.RandomAffine(
        degrees=[0.0, 0.0],
        translate=[0.1, 0.1],
        scale=[0.75, 1.25],
        interpolation=v2.InterpolationMode.BILINEAR,
        fill=list(MEAN_COLOUR),
    )
    light = v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2)
    return [v2.RandomHorizontalFlip(), v2.RandomApply([scale], p=0.5), v2.RandomApply([light], p=0.5)]


def compose(transforms: Sequence[v2.Transform]) -> Callable[..., Any] | None:
    """Compose transforms, None for an empty list; ``SanitizeBoundingBoxes`` removes whole rows of the target."""
    return v2.Compose([_with_rows(transform) for transform in transforms]) if transforms else None


def _with_rows(transform: v2.Transform) -> v2.Transform:
    if type(transform) is not v2.SanitizeBoundingBoxes or transform.labels_getter != "default":
        return transform
    names = inspect.signature(v2.SanitizeBoundingBoxes).parameters.keys() - {"labels_getter"}
    return v2.SanitizeBoundingBoxes(**{name: getattr(transform, name) for name in names}, labels_getter=box_rows)


def box_rows(inputs: Any) -> Tensor:
    """Return the row numbers of the boxes: a ``labels_getter`` for ``SanitizeBoundingBoxes`` in another transform."""
    rows: Tensor = inputs[1]["row"]
    return rows
