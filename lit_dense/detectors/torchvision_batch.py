"""Conversion of batches of torchvision's detectors into samples, and the check of their labels."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.batch_format import CLASS_LISTS, IGNORE_BOXES, UNKNOWN_LABELS
from ..core.errors import UsageError
from ..core.sample_fields import image_of_rows
from ..core.samples import DenseSamples


def collect_samples(
    targets: Sequence[dict[str, Tensor]],
    logits: Tensor,
    deltas: Tensor,
    anchors: Sequence[Tensor],
    matched_idxs: Sequence[Tensor],
    first_label: int = 0,
    **fields: Any,
) -> DenseSamples:
    """Build the samples of a batch from the arguments of torchvision's losses.

    Args:
        targets: For each image ``boxes`` [G_b, 4] and ``labels`` [G_b]. Other tensors with G_b rows, except ``masks``,
            become target fields if the shape of their rows is the same in all images. ``unknown_labels`` [any] are the
            classes that the image is not annotated for.
        logits: Class logits, one image after another [A, L].
        deltas: Box deltas in the same order [A, 4].
        anchors: Anchors of each image [K_b, 4].
        matched_idxs: For each image, the index of the matched box; -1 background, -2 ignored [K_b].
        first_label: Label of the first class in the targets.
        fields: Other fields of :class:`DenseSamples`.
    """
    counts = [len(t["boxes"]) for t in targets]
    offsets = [sum(counts[:image]) for image in range(len(counts))]
    shifts = zip(matched_idxs, offsets, strict=True)
    unique = [torch.where(m >= 0, m + offset, m) if offset else m for m, offset in shifts]
    gt_labels = torch.cat([t["labels"].reshape(-1) for t in targets]).long() - first_label
    device, target_fields = logits.device, fields_of_targets(targets, counts)
    unknown = unknown_columns(targets, logits.shape[1], device, first_label)
    numbers = [len(own) for own in anchors]
    samples = DenseSamples(
        logits=logits,
        deltas=deltas,
        anchors=torch.cat(list(anchors)),
        matched_idxs=torch.cat(unique),
        gt_boxes=torch.cat([t["boxes"].reshape(-1, 4) for t in targets]).to(device, torch.float32),
        gt_labels=gt_labels,
        gt_image_idxs=image_of_rows(counts, device),
        num_images=len(targets),
        image_idxs=image_of_rows(numbers, device),
        target_fields=target_fields,
        unknown=unknown,
        **fields,
    )
    vars(samples)["counts_of_images"] = numbers
    return samples


def unknown_columns(
    targets: Sequence[Mapping[str, Tensor]], columns: int, device: torch.device, first_label: int = 0
) -> Tensor | None:
    """Return whether a column's class is one that an image is not annotated for, bool [B, L].

    Args:
        targets: For each image, optionally ``unknown_labels`` [any].
        columns: Number of columns of the loss L.
        device: Device of the result.
        first_label: Label of the first class in the targets.

    Returns:
        A mask; None if all images are annotated for all classes.
    """
    lists = [target.get(UNKNOWN_LABELS) for target in targets]
    if not any(labels is not None and len(labels) for labels in lists):
        return None
    unknown = torch.zeros(len(lists), columns, dtype=torch.bool, device=device)
    for row, labels in zip(unknown, lists, strict=True):
        if labels is not None:
            row.index_fill_(0, labels.to(device).long() - first_label, True)
    return unknown


def all_labels(targets: Sequence[Mapping[str, Tensor]], name: str = "labels") -> Tensor:
    """Return the classes of all objects, followed by those that images are not annotated for, to check them [N].

    Args:
        targets: Targets of each image.
        name: Key of the classes of objects.
    """
    lists = [target[key] for key in (name, UNKNOWN_LABELS) for target in targets if key in target]
    return torch.cat([labels.reshape(-1).long() for labels in lists])


def check_labels(labels: Tensor, num_classes: int, first_label: int, taken: int = 0) -> None:
    """Check that every label has a column.

    Args:
        labels: Classes of the ground truths, from 0 [G].
        num_classes: C, number of classes.
        first_label: Label of the first class in the targets.
        taken: Number of columns of the head that the loss uses as extra columns.

    Raises:
        UsageError: If a label is negative or has no column in the logits.
    """
    if labels.numel() == 0:
        return
    low, high = (number + first_label for number in torch.stack(labels.aminmax()).tolist())  # one transfer for both
    last_label = first_label + num_classes - 1
    if first_label <= low and high <= last_label:
        return
    hint = ""
    if taken and low >= first_label:  # the labels may be correct: for the detector's own loss all columns are classes
        columns = num_classes + taken
        hint = (
            f" The loss takes {taken} of its {columns} columns for itself: build the model with "
            f"num_classes={max(columns, high - first_label + 1) + taken}, and leave the labels as they are."
        )
    elif first_label == 0 and low == 1 and high == num_classes:
        hint = " They seem to start at 1: column 0 is a class here, not background, so subtract 1 from each label."
    if first_label == 1 and low == 0:
        hint = " They seem to start at 0, which is background in this detector: add 1 to each label."
    raise UsageError(
        f"Labels of this batch run from {low} to {high}, but the head has {num_classes} classes, which take "
        f"labels {first_label} to {last_label}.{hint}"
    )


def fields_of_targets(
    targets: Sequence[Mapping[str, Tensor]],
    counts: Sequence[int],
    known: Collection[str] = ("boxes", "labels", "masks"),
) -> dict[str, Tensor]:
    """Collect the other tensors of the targets that have one row per box and the same row shape in all images.

    Args:
        targets: Targets of each image.
        counts: Number of boxes of each image.
        known: Keys that are not collected.
    """
    names = set.intersection(*(set(t) for t in targets)) - {*known, *CLASS_LISTS, IGNORE_BOXES} if targets else set()
    fields = {}
    for name in sorted(names):
        rows = [t[name] for t in targets]
        per_box = all(isinstance(r, Tensor) and r.dim() > 0 and len(r) == n for r, n in zip(rows, counts, strict=True))
        if per_box and len({r.shape[1:] for r in rows}) == 1:
            fields[name] = torch.cat(rows)
    return fields
