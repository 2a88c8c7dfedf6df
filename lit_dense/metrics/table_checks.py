"""Checks of detections and ground truth before evaluation: invalid boxes, areas, scores and labels."""

from collections.abc import Sequence

import numpy as np

from ..core.errors import UsageError
from .backends import Protocol
from .detection_table import ABSENT, CROWD, DETECTION, NOT_EXHAUSTIVE, OBJECT, Array, DetectionTable

_SIDES = {
    DETECTION: "preds",
    OBJECT: "targets",
    CROWD: "targets",
    ABSENT: "neg_labels",
    NOT_EXHAUSTIVE: "not_exhaustive_labels",
}
_ROUNDING = 1e-4  # scores up to 1 + this number are accepted


def check_rows(rows: DetectionTable, class_names: Sequence[str] | None) -> None:
    """Raise an error for invalid numbers, from which AP would be computed without any warning.

    Args:
        rows: Detections and ground truth.
        class_names: The name of each label; None accepts all labels from 0.

    Raises:
        UsageError: If a box, an area or a score is invalid, or a label has no name. The message names the first.
    """
    has_box = np.isin(rows.kinds, (DETECTION, OBJECT, CROWD))
    _check_boxes(rows, has_box)
    is_detection = rows.kinds == DETECTION
    _check_scores(rows, is_detection)
    area = np.flatnonzero(has_box & ~is_detection & ((rows.scores < 0) | np.isinf(rows.scores)))
    if len(area):
        raise UsageError(
            f"DetectionMAP: {_place(rows, area[0])} has area {rows.scores[area[0]]}; an area in pixels is expected. "
            "If area is omitted, the area of the box is used."
        )
    _check_labels(rows, class_names)


def _check_boxes(rows: DetectionTable, has_box: Array) -> None:
    boxes = rows.boxes
    is_right = (boxes[:, 2:] >= boxes[:, :2]).all(1) & np.isfinite(boxes).all(1)
    is_wrong = has_box & ~is_right
    wrong = np.flatnonzero(is_wrong)
    if not len(wrong):
        return
    same_side = rows.kinds == DETECTION if rows.kinds[wrong[0]] == DETECTION else has_box & (rows.kinds != DETECTION)
    box = boxes[wrong[0]]
    hint = ""
    if not np.isfinite(box).all():
        fault = "is not finite"
    else:
        fault = "has " + " and ".join(
            f"{a}2 < {a}1" for a, low, high in zip("xy", box[:2], box[2:], strict=True) if high < low
        )
        if (boxes[same_side, 2:] >= 0).all():
            hint = " If they are x, y, width, height, torchvision.ops.box_convert(boxes, 'xywh', 'xyxy') converts them."
    raise UsageError(
        f"DetectionMAP: {_place(rows, wrong[0])} {fault}: {[round(float(v), 2) for v in box]}. Boxes must be x1, y1, "
        f"x2, y2 in pixels; {(is_wrong & same_side).sum()} of {same_side.sum()} boxes of the {_side(rows, wrong[0])} "
        f"are wrong.{hint}"
    )


def _check_scores(rows: DetectionTable, is_detection: Array) -> None:
    total = is_detection.sum()
    wrong = np.flatnonzero(is_detection & np.isnan(rows.scores))
    if len(wrong):
        raise UsageError(
            f"DetectionMAP: the scores of {len(wrong)} of {total} detections are not a number (NaN); the first is "
            f"{_place(rows, wrong[0])}."
        )
    wrong = np.flatnonzero(is_detection & ~((rows.scores >= 0) & (rows.scores <= 1 + _ROUNDING)))
    if len(wrong):
        raise UsageError(
            f"DetectionMAP: the scores of {len(wrong)} of {total} detections are not between 0 and 1; the first is "
            f"{_place(rows, wrong[0])}, {rows.scores[wrong[0]]:g}. Apply a sigmoid to logits; divide percent by 100."
        )


def _check_labels(rows: DetectionTable, class_names: Sequence[str] | None) -> None:
    number = np.iinfo(np.int32).max if class_names is None else len(class_names)
    wrong = np.flatnonzero((rows.labels < 0) | (rows.labels >= number))
    if not len(wrong):
        return
    what = "a detection" if rows.kinds[wrong[0]] == DETECTION else "a ground truth"
    known = "labels start at 0"
    if class_names is not None:
        known = f"class_names names {number} classes (labels 0 to {number - 1})"
        if rows.labels.min() == 1 and rows.labels.max() == number:
            known += ", and labels that start at 1 must be lowered by 1"
    raise UsageError(
        f"DetectionMAP: {what} has label {rows.labels[wrong[0]]}, but {known}; {len(wrong)} boxes have such labels, "
        f"the first is {_place(rows, wrong[0])}."
    )


def cut_detections(rows: DetectionTable, protocol: Protocol, limit: int) -> str:
    """Return a warning about detections that are excluded by a limit; empty if there are none.

    Args:
        rows: Detections and ground truth.
        protocol: With ``coco`` the limit applies to each image and class, with ``lvis`` to each image.
        limit: Number of best detections that are evaluated.
    """
    detections = np.flatnonzero(rows.kinds == DETECTION)
    crowded = np.bincount(rows.images[detections], minlength=1) > limit
    if not crowded.any():
        return ""
    in_crowded = detections[crowded[rows.images[detections]]]
    images = rows.images[in_crowded]
    labels = rows.labels[in_crowded] if protocol == "coco" else np.zeros_like(rows.labels[in_crowded])
    groups, counts = np.unique(np.stack([images, labels], 1), axis=0, return_counts=True)
    left_out = (counts - limit).clip(0).sum()
    if not left_out:
        return ""
    most = counts.argmax()
    of_class = f" of label {groups[most, 1]}" if protocol == "coco" else ""
    return (
        f"DetectionMAP: max_detections={limit} leaves out {left_out} of {len(detections)} detections, those of lowest "
        f"score; most are in image {rows.image_ids[groups[most, 0]]}, which has {counts[most]}{of_class}. Where images "
        "have more objects than that, raise max_detections (eval_max_detections of LitRetinaNet)."
    )


def _side(rows: DetectionTable, row: int) -> str:
    """Return the name of the argument from which a row comes."""
    return _SIDES[rows.kinds[row]]


def _place(rows: DetectionTable, row: int) -> str:
    """Describe a row by its position in the argument of its image, and the image."""
    before = rows.kinds[:row][rows.images[:row] == rows.images[row]].tolist()
    number = [_SIDES[kind] for kind in before].count(_side(rows, row))
    return f"row {number} of the {_side(rows, row)} of image {rows.image_ids[rows.images[row]]}"
