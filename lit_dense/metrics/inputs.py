"""Checks of what a metric is given, and its conversion to rows."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .detection_rows import ABSENT, CROWD, DETECTION, NOT_EXHAUSTIVE, OBJECT

Rows = tuple[Tensor, Tensor]
"""Rows of the metric's states ``boxes`` and ``labels``."""


def check_batch(preds: Any, targets: Any) -> None:
    """Raises ValueError unless there are equally many dicts of both."""
    for name, batch in (("preds", preds), ("targets", targets)):
        if not isinstance(batch, Sequence) or not all(isinstance(item, Mapping) for item in batch):
            raise ValueError(f"{name} must be a list with one dict of tensors per image, got {type(batch).__name__}.")
    if len(preds) != len(targets):
        raise ValueError(f"preds has {len(preds)} images but targets has {len(targets)}; one of each is expected.")


def read_ids(image_ids: Sequence[int] | Tensor | None, count: int) -> list[tuple[int, int]]:
    """The id of each image, and whether it was given."""
    if image_ids is None:
        return [(0, 0)] * count
    items = image_ids.tolist() if isinstance(image_ids, Tensor) else list(image_ids)
    if len(items) != count:
        raise ValueError(f"image_ids has {len(items)} ids for {count} images; one per image is expected.")
    try:
        return [(operator.index(item), 1) for item in items]
    except TypeError:
        raise ValueError(f"image_ids must be integers, got {items}.") from None


def detections(pred: Mapping[str, Tensor], where: str) -> Rows:
    """The rows of an image's detections."""
    boxes = _boxes(pred, where)
    labels = _integers(pred, "labels", where, len(boxes))
    scores = _column(pred, "scores", where, len(boxes))
    return _join(boxes, scores, labels, torch.full_like(labels, DETECTION))


def objects(target: Mapping[str, Tensor], where: str) -> Rows:
    """The rows of an image's ground truth."""
    boxes = _boxes(target, where)
    labels = _integers(target, "labels", where, len(boxes))
    kinds = torch.full_like(labels, OBJECT)
    if target.get("iscrowd") is not None:
        crowd = _integers(target, "iscrowd", where, len(boxes)).to(labels.device)
        kinds = torch.where(crowd != 0, CROWD, kinds)
    areas = boxes.new_full((len(boxes),), torch.nan)
    if target.get("area") is not None:
        areas = _column(target, "area", where, len(boxes))
    return _join(boxes, areas, labels, kinds)


def federated_labels(target: Mapping[str, Tensor], where: str) -> Rows:
    """The rows of the classes that an image is known not to have, and of those that are not annotated exhaustively."""
    absent, partial = (_integers(target, key, where) for key in ("neg_labels", "not_exhaustive_labels"))
    kinds = torch.cat([torch.full_like(absent, ABSENT), torch.full_like(partial, NOT_EXHAUSTIVE).to(absent.device)])
    labels = torch.cat([absent, partial.to(absent.device)])
    boxes = torch.zeros(len(labels), 4, device=labels.device)
    return _join(boxes, boxes[:, 0], labels, kinds)


def _join(boxes: Tensor, extra: Tensor, labels: Tensor, kinds: Tensor) -> Rows:
    rows = torch.cat([boxes, extra.to(boxes)[:, None]], dim=1)
    return rows, torch.stack([labels, kinds], dim=1).to(torch.int32)


def _boxes(item: Mapping[str, Tensor], where: str) -> Tensor:
    boxes = _tensor(item, "boxes", where)
    if boxes.numel() == 0:
        boxes = boxes.reshape(0, 4)  # an image without boxes may come as an empty list made a tensor
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{where}['boxes'] has shape {tuple(boxes.shape)}; [N, 4] is expected: x1, y1, x2, y2.")
    return boxes.to(torch.float32)


def _column(item: Mapping[str, Tensor], key: str, where: str, count: int | None = None) -> Tensor:
    values = _tensor(item, key, where)
    if values.numel() == 0:
        values = values.reshape(0)
    if values.ndim != 1 or count not in (None, len(values)):
        expected = "[N] is expected" if count is None else f"[{count}] is expected: one value per box"
        raise ValueError(f"{where}[{key!r}] has shape {tuple(values.shape)}; {expected}.")
    return values


def _integers(item: Mapping[str, Tensor], key: str, where: str, count: int | None = None) -> Tensor:
    values = _column(item, key, where, count)
    if values.numel() and (values.is_floating_point() or values.is_complex()):
        raise ValueError(f"{where}[{key!r}] has type {values.dtype}; integers are expected.")
    return values.to(torch.int32)


def _tensor(item: Mapping[str, Tensor], key: str, where: str) -> Tensor:
    if key not in item:
        raise ValueError(f"{where} has no {key!r}; it has {', '.join(map(repr, item)) or 'no keys'}.")
    if not isinstance(item[key], Tensor):
        raise ValueError(f"{where}[{key!r}] is a {type(item[key]).__name__}; a tensor is expected.")
    return item[key].detach()
