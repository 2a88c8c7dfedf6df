"""Checks of the inputs of ``DetectionMAP.update``, and their conversion to rows of a detection table."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core.batch_format import UNKNOWN_LABELS
from ..core.errors import UsageError
from .detection_table import ABSENT, CROWD, DETECTION, NOT_EXHAUSTIVE, OBJECT, UNKNOWN

Items = Sequence[Mapping[str, Tensor]]

NOT_GIVEN, NO_CROWD, NO_BOX = torch.tensor([torch.nan]), torch.tensor([0]), torch.zeros(1, 4)
FEDERATED = {ABSENT: "neg_labels", NOT_EXHAUSTIVE: "not_exhaustive_labels"}
"""Keys of LVIS's lists of classes in the targets, by kind of row."""


class BatchRows(NamedTuple):
    """Rows of the images of a batch, ordered by image.

    Args:
        counts: Number of rows of each image.
        boxes: x1, y1, x2, y2, and the score of a detection or the area of an object, NaN if it is not given [R, 5].
        labels: Label and kind, int32 [R, 2].
    """

    counts: list[int]
    boxes: Tensor
    labels: Tensor


def check_batch(preds: Any, targets: Any) -> None:
    """Raise a UsageError unless both arguments are lists of dicts of the same length."""
    for name, batch in (("preds", preds), ("targets", targets)):
        if not isinstance(batch, Sequence) or not all(isinstance(item, Mapping) for item in batch):
            raise UsageError(f"{name} must be a list with one dict of tensors per image, got {type(batch).__name__}.")
    if len(preds) != len(targets):
        raise UsageError(f"preds has {len(preds)} images but targets has {len(targets)}; one of each is expected.")


def read_ids(image_ids: Sequence[int] | Tensor | None, count: int) -> list[tuple[int, int]]:
    """Return the id of each image, and 1 if it was given, else 0."""
    if image_ids is None:
        return [(0, 0)] * count
    items = image_ids.tolist() if isinstance(image_ids, Tensor) else list(image_ids)
    if len(items) != count:
        raise UsageError(f"image_ids has {len(items)} ids for {count} images; one per image is expected.")
    try:
        return [(operator.index(item), 1) for item in items]
    except TypeError:
        raise UsageError(f"image_ids must be integers, got {items}.") from None


def batch_rows(preds: Items, targets: Items, federated: bool, device: torch.device) -> BatchRows:
    """Convert a batch to rows: detections and ground truth of each image, and with ``federated`` LVIS's class lists.

    Tensors are checked one by one, which is cheap, and concatenated once for the whole batch.

    Args:
        preds: Detections of each image.
        targets: Ground truth of each image.
        federated: Whether to include LVIS's class lists, which every target must have.
        device: Device of the rows.

    Raises:
        UsageError: If keys are missing, or types, lengths or shapes are wrong.
    """
    detections, objects = _boxes(preds, "preds"), _boxes(targets, "targets")
    numbers, lengths = [b.shape[0] for b in detections], [b.shape[0] for b in objects]
    areas = _with_default(targets, "area", lengths, NOT_GIVEN)
    # Each inner list has one tensor per image.
    boxes, kinds = [detections, objects], [DETECTION, OBJECT]
    extras = [_columns(preds, "scores", "preds", numbers), _columns(areas, "area", "targets", lengths)]
    labels = [_integers(preds, "labels", "preds", numbers), _integers(targets, "labels", "targets", lengths)]
    for kind, key in FEDERATED.items() if federated else ():
        listed = _integers(targets, key, "targets")
        kinds.append(kind)
        labels.append(listed)
        boxes.append([NO_BOX.expand(len(values), 4) for values in listed])
        extras.append([NOT_GIVEN.expand(len(values)) for values in listed])
    counts = np.array([[values.shape[0] for values in per_image] for per_image in labels])
    kinds_of_rows = torch.from_numpy(np.repeat(np.tile(kinds, len(preds)), counts.T.ravel())).to(device)
    if any(target.get("iscrowd") is not None for target in targets):
        crowds = _integers(_with_default(targets, "iscrowd", lengths, NO_CROWD), "iscrowd", "targets", lengths)
        kinds_of_rows[kinds_of_rows == OBJECT] = torch.where(_join([crowds], device) != 0, CROWD, OBJECT)
    if any(UNKNOWN_LABELS in target for target in targets):
        in_unknown = _of_unknown_classes(targets, labels)
        kinds_of_rows = torch.where(_join(in_unknown, device), UNKNOWN, kinds_of_rows)
    # each tensor by itself: cat would round integer boxes to the half precision of other tensors
    columns = _join(_floats(boxes), device), _join(_floats(extras), device)[:, None]
    return BatchRows(
        counts.sum(0).tolist(),
        torch.cat(columns, 1),
        torch.stack([_join(labels, device), kinds_of_rows], 1).to(torch.int32),
    )


def _of_unknown_classes(targets: Items, labels: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """Return for each list of labels whether a label is one of the unknown classes of its image."""
    given = _with_default(targets, UNKNOWN_LABELS, [0] * len(targets), NO_CROWD)
    unknown = _integers(given, UNKNOWN_LABELS, "targets")
    return [[torch.isin(o, u.to(o.device)) for o, u in zip(own, unknown, strict=True)] for own in labels]


def _floats(lists: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """Return the tensors of lists in float32."""
    return [[part.to(torch.float32) for part in own] for own in lists]


def _join(lists: Sequence[Sequence[Tensor]], device: torch.device) -> Tensor:
    """Concatenate the tensors of the first image in all lists, then those of the second, and so on."""
    parts = [part if part.device == device else part.to(device) for image in zip(*lists, strict=True) for part in image]
    return torch.cat(parts).detach()


def _boxes(items: Items, name: str) -> list[Tensor]:
    boxes = _tensors(items, "boxes", name)
    for index, one in enumerate(boxes):
        box_format = getattr(getattr(one, "format", None), "value", "XYXY")  # torchvision's BoundingBoxes have a format
        if box_format != "XYXY":
            raise UsageError(
                f"{name}[{index}]['boxes'] are BoundingBoxes of format {box_format}; XYXY is expected: "
                "torchvision.transforms.v2.functional.convert_bounding_box_format(boxes, new_format='XYXY') converts "
                "them."
            )
        if one.ndim != 2 or one.shape[1] != 4:
            if one.numel():
                raise UsageError(
                    f"{name}[{index}]['boxes'] has shape {tuple(one.shape)}; [N, 4] is expected: x1, y1, x2, y2."
                )
            boxes[index] = one.reshape(0, 4)  # an image without boxes can be torch.tensor([]), of shape [0]
    return boxes


def _columns(items: Items, key: str, name: str, lengths: Sequence[int] | None = None) -> list[Tensor]:
    """Return the one-dimensional tensor of a key for each image; if ``lengths`` is given, check its length."""
    values = _tensors(items, key, name)
    for index, one in enumerate(values):
        if one.ndim != 1 or (lengths is not None and one.shape[0] != lengths[index]):
            if one.numel() or (lengths is not None and lengths[index]):
                expected = "[N]" if lengths is None else f"[{lengths[index]}]"
                why = "" if lengths is None else ": one value per box"
                raise UsageError(f"{name}[{index}][{key!r}] has shape {tuple(one.shape)}; {expected} is expected{why}.")
            values[index] = one.reshape(0)
    return values


def _integers(items: Items, key: str, name: str, lengths: Sequence[int] | None = None) -> list[Tensor]:
    values = _columns(items, key, name, lengths)
    for index, one in enumerate(values):
        if one.dtype != torch.int64:
            if one.numel() and (one.is_floating_point() or one.is_complex()):
                raise UsageError(f"{name}[{index}][{key!r}] has type {one.dtype}; integers are expected.")
            values[index] = one.to(torch.int64)
    return values


def _tensors(items: Items, key: str, name: str) -> list[Tensor]:
    values: list[Any] = [item.get(key) for item in items]
    for index, value in enumerate(values):
        if not isinstance(value, Tensor):
            where = f"{name}[{index}]"
            if key in items[index]:
                raise UsageError(f"{where}[{key!r}] is a {type(value).__name__}; a tensor is expected.")
            needed = " The protocol lvis needs it; data without LVIS's lists of classes has the protocol coco."
            hint = needed if key in FEDERATED.values() else ""
            raise UsageError(f"{where} has no {key!r}; it has {', '.join(map(repr, items[index])) or 'no keys'}.{hint}")
    return values


def _with_default(items: Items, key: str, lengths: Sequence[int], default: Tensor) -> Items:
    """Fill in a default value per box in the items that lack an optional key."""
    return [
        {key: default.expand(length)} if item.get(key) is None else item
        for item, length in zip(items, lengths, strict=True)
    ]
