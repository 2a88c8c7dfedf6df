"""Checks of what a metric is given, and its conversion to rows."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core.errors import UsageError
from .detection_table import ABSENT, CROWD, DETECTION, NOT_EXHAUSTIVE, OBJECT

Items = Sequence[Mapping[str, Tensor]]

NOT_GIVEN, NO_CROWD, NO_BOX = torch.tensor([torch.nan]), torch.tensor([0]), torch.zeros(1, 4)
FEDERATED = {ABSENT: "neg_labels", NOT_EXHAUSTIVE: "not_exhaustive_labels"}


class BatchRows(NamedTuple):
    """Rows of the images of a batch, those of an image one after another.

    Args:
        counts: The number of rows of each image.
        boxes: x1, y1, x2, y2, and a detection's score or an object's area, NaN where it is not given [R, 5].
        labels: Label and kind, int32 [R, 2].
    """

    counts: list[int]
    boxes: Tensor
    labels: Tensor


def check_batch(preds: Any, targets: Any) -> None:
    """Raises UsageError unless there are equally many dicts of both."""
    for name, batch in (("preds", preds), ("targets", targets)):
        if not isinstance(batch, Sequence) or not all(isinstance(item, Mapping) for item in batch):
            raise UsageError(f"{name} must be a list with one dict of tensors per image, got {type(batch).__name__}.")
    if len(preds) != len(targets):
        raise UsageError(f"preds has {len(preds)} images but targets has {len(targets)}; one of each is expected.")


def read_ids(image_ids: Sequence[int] | Tensor | None, count: int) -> list[tuple[int, int]]:
    """The id of each image, and whether it was given."""
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
    """The rows of a batch: of each image detections, ground truth, and with ``federated`` LVIS's lists.

    Tensors are checked one by one, which is cheap, and joined once for the whole batch.

    Args:
        preds: Detections of each image.
        targets: Ground truth of each image.
        federated: Take the lists too, which every target must have.
        device: Where the rows go.

    Raises:
        UsageError: For missing keys, wrong types, or lengths and shapes that do not fit.
    """
    found, objects = _boxes(preds, "preds"), _boxes(targets, "targets")
    numbers, lengths = [b.shape[0] for b in found], [b.shape[0] for b in objects]
    areas = _with_default(targets, "area", lengths, NOT_GIVEN)
    # each list has a tensor for every image
    boxes, kinds = [found, objects], [DETECTION, OBJECT]
    extras = [_columns(preds, "scores", "preds", numbers), _columns(areas, "area", "targets", lengths)]
    labels = [_integers(preds, "labels", "preds", numbers), _integers(targets, "labels", "targets", lengths)]
    for kind, key in FEDERATED.items() if federated else ():
        listed = _integers(targets, key, "targets")
        kinds.append(kind)
        labels.append(listed)
        boxes.append([NO_BOX.expand(len(values), 4) for values in listed])
        extras.append([NOT_GIVEN.expand(len(values)) for values in listed])
    counts = np.array([[values.shape[0] for values in one] for one in labels])
    kinds_of_rows = torch.from_numpy(np.repeat(np.tile(kinds, len(preds)), counts.T.ravel())).to(device)
    if any(target.get("iscrowd") is not None for target in targets):
        crowds = _integers(_with_default(targets, "iscrowd", lengths, NO_CROWD), "iscrowd", "targets", lengths)
        kinds_of_rows[kinds_of_rows == OBJECT] = torch.where(_join([crowds], device) != 0, CROWD, OBJECT)
    columns = _join(boxes, device).to(torch.float32), _join(extras, device).to(torch.float32)[:, None]
    return BatchRows(
        counts.sum(0).tolist(),
        torch.cat(columns, 1),
        torch.stack([_join(labels, device), kinds_of_rows], 1).to(torch.int32),
    )


def _join(lists: Sequence[Sequence[Tensor]], device: torch.device) -> Tensor:
    """The tensors of the first image in all lists, of the second, and so on, in one."""
    parts = [part if part.device == device else part.to(device) for image in zip(*lists, strict=True) for part in image]
    return torch.cat(parts).detach()


def _boxes(items: Items, name: str) -> list[Tensor]:
    boxes = _tensors(items, "boxes", name)
    for index, one in enumerate(boxes):
        kept = getattr(getattr(one, "format", None), "value", "XYXY")  # of torchvision's BoundingBoxes
        if kept != "XYXY":
            raise UsageError(
                f"{name}[{index}]['boxes'] are BoundingBoxes of format {kept}; XYXY is expected: "
                "torchvision.transforms.v2.functional.convert_bounding_box_format(boxes, new_format='XYXY') converts "
                "them."
            )
        if one.ndim != 2 or one.shape[1] != 4:
            if one.numel():
                raise UsageError(
                    f"{name}[{index}]['boxes'] has shape {tuple(one.shape)}; [N, 4] is expected: x1, y1, x2, y2."
                )
            boxes[index] = one.reshape(0, 4)  # an image without boxes may come as an empty list made a tensor
    return boxes


def _columns(items: Items, key: str, name: str, lengths: Sequence[int] | None = None) -> list[Tensor]:
    """A value per box, where the numbers of boxes are given."""
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
            raise UsageError(f"{where} has no {key!r}; it has {', '.join(map(repr, items[index])) or 'no keys'}.")
    return values


def _with_default(items: Items, key: str, lengths: Sequence[int], default: Tensor) -> Items:
    """The values of an optional key, with a default for each box of those without it."""
    return [
        {key: default.expand(length)} if item.get(key) is None else item
        for item, length in zip(items, lengths, strict=True)
    ]
