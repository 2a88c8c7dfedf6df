"""Conversion of the tensors of a custom head into the fields of ``DenseSamples``."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .errors import UsageError
from .missing_field import MissingField

NARROW = 0.5
"""Largest range of all logits of a batch that an untrained head can have by chance between 0 and 1."""


def fields_of_rows(
    logits: Tensor,
    labels: Tensor,
    boxes: Tensor | None,
    gt_boxes: Tensor | None,
    matched_idxs: Tensor | None,
    deltas: Tensor | None,
    anchors: Tensor | None,
    box_coder: Any,
    images: Tensor | int | None,
) -> dict[str, Any]:
    """Return the fields of ``DenseSamples`` for labels that are assigned already.

    The arguments are those of ``DenseSamples.of``.

    Raises:
        UsageError: If shapes do not fit together, a label is invalid, or the logits seem to be probabilities.
    """
    if not isinstance(labels, Tensor):
        raise UsageError(f"labels must be a tensor, not a {type(labels).__name__}: use torch.as_tensor(labels).")
    rows, number = _rows(logits), labels.numel()
    per_row = {"labels": labels, "boxes": boxes, "deltas": deltas, "anchors": anchors, "matched_idxs": matched_idxs}
    per_row["images"] = images if isinstance(images, Tensor) else None
    per_row["gt_boxes"] = gt_boxes if matched_idxs is None else None
    _check_rows(len(rows), per_row)
    _check_logits(rows)
    largest_label = _check_labels(labels, rows.shape[1])
    labels = labels.reshape(-1).long()
    image_idxs, num_images = _images(logits, images, number)
    positives = (labels >= 0).nonzero().squeeze(1)
    if matched_idxs is None:
        matched = labels.clamp(max=-1).index_put((positives,), torch.arange(len(positives), device=labels.device))
        gt_labels, gt_images = labels[positives], image_idxs[positives]
        objects = None if gt_boxes is None else _rows(gt_boxes)[positives].float()
    else:
        matched = torch.where(labels >= 0, matched_idxs.reshape(-1), labels)
        objects = None if gt_boxes is None else _rows(gt_boxes).float()
        largest = _check_matches(matched[positives], None if objects is None else len(objects))
        count = largest + 1 if objects is None else len(objects)
        gt_labels = labels.new_zeros(count).index_put((matched[positives],), labels[positives])
        gt_images = labels.new_zeros(count).index_put((matched[positives],), image_idxs[positives])
    if objects is not None:
        _check_objects(objects)
    lacking = "boxes=[A, 4] and gt_boxes=[A, 4], or deltas, anchors and box_coder"
    return {
        "logits": rows,
        "deltas": MissingField(
            "predicted boxes or deltas", f"give {lacking}; or box_loss=None for a criterion without a box loss"
        )
        if deltas is None
        else _rows(deltas),
        "anchors": MissingField("anchors", "give anchors=[A, 4]") if anchors is None else _rows(anchors),
        "box_coder": MissingField("box coder", "give box_coder") if box_coder is None else box_coder,
        "boxes": None if boxes is None else _rows(boxes),
        "matched_idxs": matched,
        "gt_boxes": MissingField("ground-truth boxes", "give gt_boxes=[A, 4]") if objects is None else objects,
        "gt_labels": gt_labels,
        "gt_image_idxs": gt_images,
        "num_images": num_images,
        "image_idxs": image_idxs,
        "largest_label": largest_label,
    }


def with_target_fields(fields: dict[str, Any], own_objects: bool, more: dict[str, Any]) -> dict[str, Any]:
    """Add other fields; ``target_fields`` with a value for each row become those of the objects.

    Args:
        fields: The result of :func:`fields_of_rows`.
        own_objects: Whether each positive has a ground truth of its own.
        more: The other fields.

    Raises:
        UsageError: If a target field has another number of values.
    """
    given = more.get("target_fields")
    if given is None:
        return {**fields, **more}
    matched, objects, chosen = fields["matched_idxs"], len(fields["gt_labels"]), {}
    for name, values in given.items():
        number = len(values)
        if number == objects:
            chosen[name] = values
        elif own_objects and number == len(matched):
            chosen[name] = values[matched >= 0]
        else:
            rows = f" or one for each of the {len(matched)} rows" if own_objects else ""
            raise UsageError(
                f"target_fields: {name!r} has {number} values: give one for each of the {objects} objects{rows}."
            )
    return {**fields, **more, "target_fields": chosen}


def repeated_images(num_images: int, number: int, device: torch.device) -> Tensor:
    """Return the image of each anchor if every image has the same number of anchors [num_images * number]."""
    return torch.arange(num_images, device=device).repeat_interleave(number)


def on_device(numbers: Sequence[int], device: torch.device) -> Tensor:
    """Convert integers to a tensor that the device writes: a copy from the CPU would synchronise the device."""
    if not numbers:
        return torch.zeros(0, dtype=torch.int64, device=device)
    return torch.stack([torch.full((), number, device=device) for number in numbers])


def _rows(tensor: Tensor) -> Tensor:
    """Flatten [B, K, n] to [A, n]."""
    return tensor.reshape(-1, tensor.shape[-1])


def _check_rows(number: int, per_row: dict[str, Tensor | None]) -> None:
    for name, value in per_row.items():
        if value is None:
            continue
        has_boxes, width = name in ("boxes", "gt_boxes", "deltas", "anchors"), value.shape[-1:]
        outputs = name == "deltas" and len(width) == 1 and width[0] > 4  # of a box loss with outputs of its own
        if has_boxes and width != (4,) and not outputs:
            raise UsageError(f"{name} must be [A, 4], not {list(value.shape)}.")
        if (count := value.numel() // (width[0] if has_boxes else 1)) != number:
            raise UsageError(f"{name} has {count} rows, but the logits have {number}.")


def _check_labels(labels: Tensor, columns: int) -> int:
    """Check type and range of labels, which synchronises the device once; return the largest one, or -1."""
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise UsageError(f"labels must be integers, not {str(labels.dtype).removeprefix('torch.')}.")
    if labels.numel() == 0:
        return -1
    low, high = torch.stack(list(labels.detach().aminmax())).tolist()
    if low >= -2 and high < columns:
        return int(high)
    hint = ""
    if low < -2:
        hint = " To ignore an anchor, give it the label -2."
    elif high == columns:
        hint = " If they start at 1, subtract 1 from those of objects; background is -1."
    raise UsageError(
        f"Labels run from {low} to {high}, but the logits have {columns} columns: labels must be 0 to {columns - 1}, "
        f"-1 for background or -2 for ignored anchors.{hint}"
    )


def _check_objects(boxes: Tensor) -> None:
    """Check the boxes of objects, which synchronises the device once."""
    wrong = ~(boxes.isfinite().all(1) & (boxes[:, 2:] >= boxes[:, :2]).all(1))
    if bool(wrong.any()):
        raise UsageError(
            f"gt_boxes of an object is {boxes[wrong][0].tolist()}; x1, y1, x2, y2 are expected. "
            "torchvision.ops.box_convert converts other formats."
        )


def _check_matches(matched: Tensor, count: int | None) -> int:
    """Check the matched ground truths of positives, of ``count`` if known; return the largest index, or -1."""
    if matched.numel() == 0:
        return -1
    low, high = torch.stack(list(matched.aminmax())).tolist()
    if low < 0:
        raise UsageError(
            f"A row with a class has the index {low} in matched_idxs: give that of its ground truth, 0 or more."
        )
    if count is not None and high >= count:
        raise UsageError(f"matched_idxs has the index {high}, but gt_boxes has {count} boxes, 0 to {count - 1}.")
    return int(high)


def _check_logits(logits: Tensor) -> None:
    if logits.numel() == 0:
        return
    # as a list, because torch 2.4 cannot compile torch.stack of a tuple
    low, high = torch.stack(list(logits.detach().aminmax())).tolist()
    if low < 0 or high > 1 or high <= 0:
        return
    cure = "Give the scores before the sigmoid or softmax, or torch.logit(probabilities)."
    if high - low >= NARROW:
        raise UsageError(f"All logits lie in [{low:.3g}, {high:.3g}]: they seem to be probabilities. {cure}")
    warnings.warn(
        f"All logits lie between 0 and 1. If they are probabilities: {cure} An untrained head can have such logits.",
        stacklevel=2,
    )


def _images(logits: Tensor, images: Tensor | int | None, number: int) -> tuple[Tensor, int]:
    """Return the image of each row [A] and the number of images."""
    if isinstance(images, Tensor):
        image_idxs = images.reshape(-1).long()
        low, high = torch.stack(list(image_idxs.aminmax())).tolist() if number else (0, 0)
        if low < 0:
            raise UsageError(f"images has the index {low}: give the image of each row, from 0 on.")
        return image_idxs, int(high) + 1
    num_images = images if images is not None else len(logits) if logits.dim() == 3 else 1
    if num_images < 1 or number % num_images:
        raise UsageError(f"{number} rows cannot be shared equally by {num_images} images: give images=[A].")
    return repeated_images(num_images, number // num_images, logits.device), num_images


def image_of_rows(counts: Sequence[int], device: torch.device) -> Tensor:
    """Return the image of each row; image b has counts[b] rows.

    Args:
        counts: Number of rows of each image.
        device: Device of the result.
    """
    if not counts:
        return torch.zeros(0, dtype=torch.int64, device=device)
    return torch.cat([torch.full((count,), image, device=device) for image, count in enumerate(counts)])


def checked_unknown(unknown: Tensor, num_images: int, num_classes: int, columns: int) -> Tensor:
    """Check which classes are unknown in each image, and add columns of the loss that are no class [B, L].

    Args:
        unknown: Whether an image is not annotated for a class, bool [B, C] or [B, L].
        num_images: B, number of images.
        num_classes: C, number of classes.
        columns: L, number of columns of the loss.

    Raises:
        UsageError: If type or shape is wrong.
    """
    shape = list(unknown.shape)
    if unknown.dtype != torch.bool or shape not in ([num_images, number] for number in (num_classes, columns)):
        raise UsageError(
            f"unknown must be bool [{num_images}, {num_classes}], one row per image and one column per class, not "
            f"{str(unknown.dtype).removeprefix('torch.')} {shape}."
        )
    return torch.nn.functional.pad(unknown, (0, columns - shape[1]))
