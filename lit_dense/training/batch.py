"""Checks of a batch, and its conversion for the detector and the metric."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.batch_format import CLASS_LISTS, IGNORE_BOXES, UNKNOWN_LABELS, Batch, image_name
from ..core.batch_values import normalised_error, seem_normalised, warn_of_range
from ..core.errors import UsageError
from ..data.checks.thin_images import check_sizes


def checked_batch(
    images: Sequence[Tensor], targets: list[dict[str, Any]], num_labels: int | None, max_size: int | None
) -> Batch:
    """Check the values of a batch whose format is right, and convert its images to floats.

    Args:
        images: Images [C, H, W], uint8 or float.
        targets: For each image ``boxes`` [G, 4] and ``labels`` [G].
        num_labels: Number of valid labels; None if targets need no boxes and labels, as in prediction.
        max_size: The model's largest length of the longer side in pixels; None if images are scaled to squares.

    Raises:
        UsageError: If an image is too thin, or a box or label is invalid.
    """
    if num_labels is not None:
        check_targets(targets, num_labels)
    floats = float_images(images)
    # only an image that is more than max_size times as long as wide can vanish when it is scaled
    if max_size is not None and any(max(i.shape[-2:]) >= max_size * min(i.shape[-2:]) for i in images):
        check_sizes(images, targets, max_size)
    return floats, targets


class BatchChecks:
    """Checks of the values of each batch; the range of float images only in the first, because it synchronises."""

    def __init__(self) -> None:
        self._range_is_checked = False

    def __call__(
        self, images: Sequence[Tensor], targets: list[dict[str, Any]], num_labels: int | None, max_size: int | None
    ) -> Batch:
        """Return :func:`checked_batch`, after a warning if the first batch has floats in another range."""
        batch = checked_batch(images, targets, num_labels, max_size)
        if not self._range_is_checked:
            self._range_is_checked = True
            warn_of_range(images)
        return batch


def float_images(images: Sequence[Tensor]) -> list[Tensor]:
    """Convert images to float32 in [0, 1]; they are copied to the device as uint8, which is a quarter of the size.

    Args:
        images: Images [C, H, W], uint8 or float.
    """
    return [i.float() if i.is_floating_point() else i.float().div_(255) for i in images]


def without_crowd(targets: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Turn the crowd boxes of targets into ignore regions, ``ignore_boxes``. Synchronises the device once.

    Args:
        targets: Targets; ``iscrowd`` [G], if present, marks the boxes of crowds.
    """
    flags = [t["iscrowd"] for t in targets if "iscrowd" in t]
    given = torch.cat(flags) if flags else torch.zeros(0)
    if not bool(given.any()):
        return list(targets)
    if len(wrong := given[(given != 0) & (given != 1)]):
        raise UsageError(f"iscrowd must be 0 or 1, and is {wrong[0].item():g} for a box.")
    return [_without_crowd(t) if "iscrowd" in t else t for t in targets]


def _without_crowd(target: dict[str, Any]) -> dict[str, Any]:
    keep = target["iscrowd"] == 0
    objects = {
        name: value[keep] if isinstance(value, Tensor) and value.dim() > 0 and len(value) == len(keep) else value
        for name, value in target.items()
        if name not in (IGNORE_BOXES, *CLASS_LISTS)
    }
    regions = [target["boxes"][~keep], *([target[IGNORE_BOXES]] if IGNORE_BOXES in target else [])]
    lists = {name: target[name] for name in CLASS_LISTS if name in target}
    return {**objects, **lists, IGNORE_BOXES: torch.cat(regions)}


def metric_targets(targets: Sequence[dict[str, Any]]) -> list[dict[str, Tensor]]:
    """Select the fields that the metric reads: boxes, labels and, if present, areas, crowds and lists of classes.

    Args:
        targets: Complete targets, including crowd boxes.
    """
    names = ("boxes", "labels", "area", "iscrowd", *CLASS_LISTS)
    return [{name: t[name] for name in names if name in t} for t in targets]


def check_targets(targets: Sequence[dict[str, Any]], num_classes: int) -> None:
    """Check the boxes and labels of targets in the correct format. Synchronises the device once.

    Args:
        targets: For each image ``boxes`` [G, 4], ``labels`` [G], and optionally ``unknown_labels`` [any].
        num_classes: Number of valid labels.

    Raises:
        UsageError: If a box is not finite or has no area, a label is out of range, or all boxes are normalised.
    """
    if not targets:
        return
    bad = torch.cat(
        [_bad_boxes(t["boxes"]) | _bad_labels(t["labels"], num_classes) for t in targets]
        + [_bad_labels(t[UNKNOWN_LABELS], num_classes) for t in targets if UNKNOWN_LABELS in t]
        + [_bad_boxes(t[IGNORE_BOXES]) for t in targets if IGNORE_BOXES in t]
    )
    boxes = torch.cat([t["boxes"].float() for t in targets])
    if not bool(bad.any() | seem_normalised(boxes)):
        return
    for index, target in enumerate(targets):
        name, own, labels = image_name(target, index), target["boxes"], target["labels"]
        if len(wrong := own[_bad_boxes(own)]):
            raise UsageError(f"The target of {name} has a box without area: {wrong[0].tolist()} (x1 y1 x2 y2).")
        if len(wrong := labels[_bad_labels(labels, num_classes)]):
            raise UsageError(
                f"The target of {name} has label {int(wrong[0])}, but the head takes labels 0 to {num_classes - 1}. "
                "Column 0 is a class, not background: labels that start at 1 must be lowered by 1."
            )
        unknown = target.get(UNKNOWN_LABELS, labels)
        if len(wrong := unknown[_bad_labels(unknown, num_classes)]):
            raise UsageError(
                f"The target of {name} has {int(wrong[0])} in {UNKNOWN_LABELS}, but the head takes labels 0 to "
                f"{num_classes - 1}."
            )
        regions = target.get(IGNORE_BOXES, own)
        if len(wrong := regions[_bad_boxes(regions)]):
            raise UsageError(f"The target of {name} has an ignore region without area: {wrong[0].tolist()}.")
    raise normalised_error(boxes)


def _bad_boxes(boxes: Tensor) -> Tensor:
    return ~((boxes[:, 2:] > boxes[:, :2]) & boxes.isfinite().all(1, keepdim=True)).all(1)


def _bad_labels(labels: Tensor, num_classes: int) -> Tensor:
    return (labels < 0) | (labels >= num_classes)
