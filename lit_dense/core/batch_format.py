"""Checks of the format of a batch: types and shapes only, so that the device is not synchronised."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .errors import UsageError, nearest

Batch = tuple[list[Tensor], list[dict[str, Any]]]
"""Images [C, H, W], and for each image a target with ``boxes`` [G, 4] and ``labels`` [G]."""

FORMAT = (
    "Accepted is (images, targets): images a list of tensors [3, H, W], uint8 or floats in [0, 1]; targets a list of "
    "dicts with boxes [G, 4] in pixels (x1 y1 x2 y2) and labels [G]."
)
UNKNOWN_LABELS = "unknown_labels"
"""Key of a target's unknown classes: those that the image is not annotated for [any]."""
IGNORE_BOXES = "ignore_boxes"
"""Key of the ignore regions in a target [M, 4], in the format of ``boxes``."""
CLASS_LISTS = (UNKNOWN_LABELS, "neg_labels", "not_exhaustive_labels")
"""Keys of lists of classes in a target, which do not have one entry per box."""
OVERRIDE = "For another format override LitRetinaNet.unpack_batch."


def unpack(batch: Any) -> Batch:
    """Return the images and targets of a batch.

    Args:
        batch: A batch of a data loader: a pair of images and targets.

    Raises:
        UsageError: If the batch is not a pair of images and targets. The message says what it is and what is accepted.
    """
    if not isinstance(batch, (tuple, list)):
        raise _error(f"The batch is {_describe(batch)}.", OVERRIDE)
    if batch and all(_is_batch(part) for part in batch):
        raise _error(
            f"The batch is a list of {len(batch)} batches: there are several training data loaders.",
            "Join their data sets with torch.utils.data.ConcatDataset.",
        )
    if len(batch) != 2:
        listed = ", ".join(_describe(part) for part in batch[:4]) or "none"
        raise _error(f"The batch has {len(batch)} parts, not 2: {listed}.", OVERRIDE)
    images, targets = batch
    if isinstance(targets, Mapping):
        raise _error(
            f"The targets are one dict, {_describe(targets)}: the data loader stacked them.",
            "Give it a collate_fn: DataLoader(..., collate_fn=lambda batch: tuple(zip(*batch))).",
        )
    stacked = isinstance(images, Tensor) and images.dim() == 4
    if not stacked and not isinstance(images, (tuple, list)):
        raise _error(f"The images are {_describe(images)}, not a list.", OVERRIDE)
    if not isinstance(targets, (tuple, list)):
        raise _error(f"The targets are {_describe(targets)}, not a list.", OVERRIDE)
    return list(images), list(targets)


def _is_batch(part: Any) -> bool:
    """Whether an item of a batch is itself a batch: images, and targets in dicts."""
    pair = isinstance(part, (tuple, list)) and len(part) == 2 and isinstance(part[1], (tuple, list))
    return pair and all(isinstance(target, Mapping) for target in part[1])


def check_format(detector: Any, images: Sequence[Any], targets: Sequence[Any] | None, objects: bool = True) -> None:
    """Check the types and shapes of a batch.

    Args:
        detector: The torchvision detector that gets the batch.
        images: Images [C, H, W].
        targets: For each image ``boxes`` [G, 4] and ``labels`` [G]; None if the batch has no targets.
        objects: Whether every target needs boxes and labels.

    Raises:
        UsageError: If a type or shape is wrong. The message says what was found and what is accepted.
    """
    if not images:
        raise _error("The batch has no images.")
    means = len(getattr(detector.transform, "image_mean", (0.0,) * 3))
    channels = None if means == 1 else means  # a single mean is applied to any number of channels
    for index, image in enumerate(images):
        if (problem := _image_problem(image, channels)) is not None:
            raise _error(f"Image {index} of the batch is {_describe(image)}.", problem)
    if targets is None:
        return
    if len(targets) != len(images):
        raise _error(f"The batch has {len(images)} images and {len(targets)} targets.")
    for index, target in enumerate(targets):
        if not isinstance(target, Mapping):
            cure = "An image without objects has boxes [0, 4] and labels [0]." if target is None else ""
            raise _error(f"The target of image {index} of the batch is {_describe(target)}, not a dict.", cure)
        if objects and (problem := _target_problem(target)) is not None:
            raise _error(f"The target of {image_name(target, index)} has {problem}")


def _image_problem(image: Any, channels: int | None) -> str | None:
    """Return the fault of an image or its cure; None if the image is correct."""
    if not isinstance(image, Tensor):
        return "Make tensors with torchvision.transforms.v2.functional.to_image."
    if image.dim() != 3:
        return f"It has {image.dim()} dimensions rather than 3."
    if channels is not None and image.shape[0] not in (1, channels):  # torchvision repeats a single channel
        if image.shape[2] in (1, channels):
            return "Its channels come last: use image.permute(2, 0, 1)."
        return f"It has {image.shape[0]} channels rather than {channels}."
    if not image.is_floating_point() and image.dtype is not torch.uint8:
        return "Give uint8 from 0 to 255, or floats from 0 to 1."
    return None


def _target_problem(target: Mapping[str, Any]) -> str | None:
    """Return the fault of a target; None if the target is correct."""
    if missing := [field for field in ("boxes", "labels") if field not in target]:
        keys = ", ".join(map(str, target)) or "nothing"
        hint = nearest(missing[0], map(str, target)).replace("Did you mean", "Are they")
        return f"no {' and no '.join(missing)}; it has {keys}.{hint}"
    for field in ("boxes", "labels", "iscrowd"):
        if field in target and not isinstance(target[field], Tensor):
            return f"{field} that are {_describe(target[field])}, not a tensor: use torch.as_tensor."
    boxes, labels, crowd = target["boxes"], target["labels"], target.get("iscrowd")
    if boxes.dim() != 2 or boxes.shape[1] != 4 or labels.shape != boxes.shape[:1]:
        return f"boxes of shape {list(boxes.shape)} and labels of shape {list(labels.shape)}; expected [G, 4] and [G]."
    if labels.is_floating_point() or labels.dtype is torch.bool:
        return f"labels of type {labels.dtype}, not whole numbers."
    if crowd is not None and crowd.shape != labels.shape:
        return f"iscrowd of shape {list(crowd.shape)} for {len(labels)} boxes; expected [G]."
    form = getattr(getattr(boxes, "format", None), "value", "XYXY")  # tv_tensors have a format
    if form != "XYXY":
        convert = 'torchvision.transforms.v2.ConvertBoundingBoxFormat("XYXY")'
        return f"boxes of the format {form}: convert them with {convert}."
    return _list_problem(target)


def _list_problem(target: Mapping[str, Any]) -> str | None:
    """Return the fault of the unknown classes or the ignore regions of a target; None if they are correct."""
    boxes, labels = target["boxes"], target["labels"]
    unknown = target.get(UNKNOWN_LABELS, labels)
    if not isinstance(unknown, Tensor) or unknown.dim() != 1 or (unknown.is_floating_point() and len(unknown)):
        return f"{UNKNOWN_LABELS} that are {_describe(unknown)}; expected is an integer tensor of shape [any]."
    if unknown.dtype is torch.bool:
        return f"{UNKNOWN_LABELS} as a mask; expected are labels: mask.nonzero().flatten()."
    regions = target.get(IGNORE_BOXES, boxes)
    if not isinstance(regions, Tensor) or regions.dim() != 2 or regions.shape[1] != 4:
        return f"{IGNORE_BOXES} that are {_describe(regions)}; expected is a tensor of shape [M, 4]."
    return None


def image_name(target: Mapping[str, Any], index: int) -> str:
    """Return the name of an image in messages: its id or its index in the batch, and its file if that is known."""
    given = target.get("image_id")
    value = given.tolist() if isinstance(given, Tensor) else given
    name = f"image {index} of the batch" if given is None else f"image {value}"
    return f"{name} ({target['file_name']})" if "file_name" in target else name


def _error(what: str, cure: str = "") -> UsageError:
    return UsageError(" ".join(filter(None, (what, cure, FORMAT))))


def _describe(value: Any) -> str:
    """Describe a value by its type and size."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)} and type {str(value.dtype).removeprefix('torch.')}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"a {type(value).__name__} of shape {list(value.shape)} and type {value.dtype}"
    if isinstance(value, Mapping):
        return f"a dict with the keys {', '.join(map(str, value))}" if value else "an empty dict"
    if isinstance(value, (tuple, list)):
        type_names = ", ".join(dict.fromkeys(type(item).__name__ for item in value))
        kind = type(value).__name__
        return f"a {kind} of {len(value)} items ({type_names})" if value else f"an empty {kind}"
    return "None" if value is None else f"a {type(value).__name__}"
