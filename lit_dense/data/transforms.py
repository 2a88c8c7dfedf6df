"""Augmentation of images and boxes with torchvision's v2 transforms."""

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.transforms import v2

from ..core.errors import UsageError

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


def compose(transforms: Sequence[v2.Transform] | v2.Transform) -> Callable[..., Any] | None:
    """Compose transforms, None for an empty list; ``SanitizeBoundingBoxes`` removes whole rows of the target.

    Args:
        transforms: A list of transforms, or a single one.

    Raises:
        UsageError: If one is no transform of images with boxes.
    """
    listed = list(transforms) if isinstance(transforms, Sequence) and not isinstance(transforms, str) else [transforms]
    for transform in listed:
        _check(transform)
    return v2.Compose([_with_rows(transform) for transform in listed]) if listed else None


def _check(transform: Any) -> None:
    module, name = type(transform).__module__, type(transform).__name__
    if not callable(transform):
        raise UsageError(f"transforms: {transform!r} is no transform; give objects such as v2.RandomHorizontalFlip().")
    if module == "torchvision.transforms.transforms":
        raise UsageError(
            f"transforms: {name} of torchvision.transforms changes images without their boxes: take v2.{name} of "
            "torchvision.transforms.v2."
        )
    if module.partition(".")[0] == "albumentations":
        raise UsageError(
            f"transforms: put {name} of Albumentations into lit_dense.data.Albumentations([...]), which moves boxes."
        )
    if isinstance(transform, v2.ToPureTensor):
        raise UsageError("transforms: leave ToPureTensor out: boxes are checked after the last transform.")


def _with_rows(transform: v2.Transform) -> v2.Transform:
    if type(transform) is not v2.SanitizeBoundingBoxes or transform.labels_getter != "default":
        return transform
    names = inspect.signature(v2.SanitizeBoundingBoxes).parameters.keys() - {"labels_getter"}
    return v2.SanitizeBoundingBoxes(**{name: getattr(transform, name) for name in names}, labels_getter=box_rows)


def box_rows(inputs: Any) -> Tensor:
    """Return the row numbers of the boxes: a ``labels_getter`` for ``SanitizeBoundingBoxes`` in another transform."""
    rows: Tensor = inputs[1]["row"]
    return rows


class MirrorWithClasses(nn.Module):
    """A horizontal flip that also changes the labels of classes with a mirror image.

    Args:
        flip: The flip. It uses the same random numbers as without this class.
        mirrored: Label that each label becomes in a mirrored image [C].
    """

    def __init__(self, flip: v2.RandomHorizontalFlip, mirrored: Tensor) -> None:
        super().__init__()
        self.flip, self.mirrored = flip, mirrored

    def forward(self, image: Any, target: Any) -> Any:
        """Flip the image and its boxes, or return them unchanged."""
        flipped_image, flipped = self.flip(image, target)
        if flipped_image is image:
            return image, target
        return flipped_image, {**flipped, "labels": self.mirrored[flipped["labels"]]}


def mirrors(transform: Any) -> bool:
    """Return whether a transform contains a horizontal flip, at any depth.

    Args:
        transform: A transform, or None.
    """
    return isinstance(transform, v2.RandomHorizontalFlip) or any(map(mirrors, _parts(transform)))


def with_mirrored_classes(transform: Any, mirrored: Tensor) -> Any:
    """Return a copy of a transform in which all horizontal flips change labels.

    Args:
        transform: A transform, or None.
        mirrored: Label that each label becomes in a mirrored image [C].
    """
    if isinstance(transform, v2.RandomHorizontalFlip):
        return MirrorWithClasses(transform, mirrored)
    if not mirrors(transform):
        return transform
    copied = copy.copy(transform)
    if isinstance(transform, nn.Module):  # a shallow copy shares the dict of submodules
        copied.__dict__["_modules"] = dict(transform._modules)
    parts = [with_mirrored_classes(part, mirrored) for part in transform.transforms]
    copied.transforms = nn.ModuleList(parts) if isinstance(transform.transforms, nn.ModuleList) else parts
    return copied


def _parts(transform: Any) -> Sequence[Any]:
    """Return the transforms in a container of torchvision, such as ``v2.Compose`` and ``v2.RandomApply``."""
    parts = getattr(transform, "transforms", None)
    return list(parts) if isinstance(parts, (Sequence, nn.ModuleList)) else []
