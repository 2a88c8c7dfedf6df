"""What a batch of pictures and targets must look like before it meets the detector."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .errors import UsageError

Batch = tuple[list[Tensor], list[dict[str, Any]]]
"""Images [3, H, W] and per image a target with ``boxes`` [G, 4] and ``labels`` [G]."""


def float_images(images: Sequence[Tensor]) -> list[Tensor]:
    """Images as floats in [0, 1]: integers travel, for they are a quarter of the size.

    Args:
        images: Images [3, H, W], uint8 or float.
    """
    return [i if i.is_floating_point() else i.float().div_(255) for i in images]


def vanishes(height: Any, width: Any, max_size: int) -> npt.NDArray[np.bool_]:
    """Whether an image is so thin that scaling its longer side to ``max_size`` leaves less than a pixel of the other.

    Args:
        height: Of one image or of many, in pixels.
        width: The same.
        max_size: The model's largest length of the longer side, in pixels.
    """
    short, long = np.minimum(height, width), np.maximum(height, width)
    scale = (np.float32(max_size) / np.asarray(long, np.float32)).astype(np.float64)  # rounded as torchvision does
    return np.asarray(np.floor(short * scale) < 1)


def check_sizes(images: Sequence[Tensor], targets: Sequence[dict[str, Any]], max_size: int) -> None:
    """Check that no image of a batch vanishes when it is scaled.

    Args:
        images: Images [3, H, W].
        targets: What is known of each, to name it.
        max_size: The model's largest length of the longer side, in pixels.

    Raises:
        UsageError: If one does.
    """
    for index, (image, target) in enumerate(zip(images, targets, strict=False)):
        if vanishes(image.shape[-2], image.shape[-1], max_size):
            raise _too_thin(_name(target, index), image.shape[-2], image.shape[-1], max_size)


def check_all_sizes(splits: Iterable[Any], max_size: int) -> None:
    """Check that no image of a data module vanishes, before any is loaded.

    Args:
        splits: Each with the ``image_ids``, ``file_names`` and ``sizes`` (height and width, [I, 2]) of its I images.
        max_size: The model's largest length of the longer side, in pixels.

    Raises:
        UsageError: If one does.
    """
    for split in splits:
        for index in np.flatnonzero(vanishes(split.sizes[:, 0], split.sizes[:, 1], max_size))[:1]:
            name = f"image {split.image_ids[index]} ({split.file_names[index]})"
            raise _too_thin(name, int(split.sizes[index, 0]), int(split.sizes[index, 1]), max_size)


def _too_thin(name: str, height: int, width: int, max_size: int) -> UsageError:
    needed = -(-max(height, width) // min(height, width))
    return UsageError(
        f"{name[0].upper()}{name[1:]} is {width} x {height} pixels: scaling it to max_size={max_size} leaves less than "
        f"a pixel. Cut it into pieces, take it out of the data, or raise model.max_size to {needed} or more."
    )


def without_crowd(targets: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Targets without their crowd boxes: no anchor is trained on one. Where there are none it costs one transfer.

    Args:
        targets: Targets, of which ``iscrowd`` [G], where it is given, tells which boxes stand for a crowd.
    """
    given = [t["iscrowd"] for t in targets if "iscrowd" in t]
    if not given or not bool(torch.cat(given).any()):
        return list(targets)
    return [_without_crowd(t) if "iscrowd" in t else t for t in targets]


def _without_crowd(target: dict[str, Any]) -> dict[str, Any]:
    keep = target["iscrowd"] == 0
    return {
        name: value[keep] if isinstance(value, Tensor) and value.dim() > 0 and len(value) == len(keep) else value
        for name, value in target.items()
    }


def metric_targets(targets: Sequence[dict[str, Any]]) -> list[dict[str, Tensor]]:
    """What of the targets the metric takes: boxes, labels, and where they are given areas, crowds and LVIS's lists.

    Args:
        targets: Targets of whole images, crowd boxes included.
    """
    names = ("boxes", "labels", "area", "iscrowd", "neg_labels", "not_exhaustive_labels")
    return [{name: t[name] for name in names if name in t} for t in targets]


def check_targets(targets: Sequence[dict[str, Any]], num_classes: int) -> None:
    """Check that targets can be trained on; what is right costs one transfer from the device.

    Args:
        targets: Per image ``boxes`` [G, 4] and ``labels`` [G].
        num_classes: Columns of the head.

    Raises:
        UsageError: If a target lacks a field, a box is not finite or has no area, or a label has no column.
    """
    for index, target in enumerate(targets):
        if missing := [field for field in ("boxes", "labels") if field not in target]:
            raise UsageError(
                f"The target of {_name(target, index)} has no {' and no '.join(missing)}; it has {', '.join(target)}."
            )
        boxes, labels = target["boxes"], target["labels"]
        if boxes.dim() != 2 or boxes.shape[1] != 4 or labels.shape != boxes.shape[:1]:
            raise UsageError(
                f"The target of {_name(target, index)} has boxes of shape {list(boxes.shape)} and labels of shape "
                f"{list(labels.shape)}; expected [G, 4] and [G]."
            )
    bad = [_bad_boxes(t["boxes"]) | _bad_labels(t["labels"], num_classes) for t in targets]
    if not bad or not bool(torch.cat(bad).any()):
        return
    for index, target in enumerate(targets):
        name, boxes, labels = _name(target, index), target["boxes"], target["labels"]
        if len(wrong := boxes[_bad_boxes(boxes)]):
            raise UsageError(f"The target of {name} has a box without area: {wrong[0].tolist()} (x1 y1 x2 y2).")
        if len(wrong := labels[_bad_labels(labels, num_classes)]):
            raise UsageError(
                f"The target of {name} has label {int(wrong[0])}, but the head takes labels 0 to {num_classes - 1}. "
                "Column 0 is a class, not background: labels that start at 1 must be lowered by 1."
            )


def _name(target: dict[str, Any], index: int) -> str:
    name = f"image {int(target['image_id'])}" if "image_id" in target else f"image {index} of the batch"
    return f"{name} ({target['file_name']})" if "file_name" in target else name


def _bad_boxes(boxes: Tensor) -> Tensor:
    return ~((boxes[:, 2:] > boxes[:, :2]) & boxes.isfinite().all(1, keepdim=True)).all(1)


def _bad_labels(labels: Tensor, num_classes: int) -> Tensor:
    return (labels < 0) | (labels >= num_classes)
