"""Images of the worst errors of an evaluation, of bounded size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor

from ...core.object_sizes import OBJECT_SIZES
from ...functional.iou import paired_iou
from ...metrics.detection_table import DETECTION, OBJECT, Array
from ...metrics.tide import BACKGROUND, BOTH, ERRORS
from ...metrics.worst_errors import object_scores, rivals, size_index, worst_false_positives, worst_misses
from ...visualization.draw import draw_error
from ...visualization.page import embedded_image, to_webp
from .errors import Errors, short

PICTURES, PICTURE_BYTES, SIDE, QUALITY = 48, 1_500_000, 400, 75
"""Largest number of pictures of a kind and of their bytes, length of the longer side in pixels, and WebP quality."""

ReadImage = Callable[[int], Tensor | None]
"""Returns the image of an image id, [3, H, W]; None if it cannot be read."""


@dataclass(frozen=True)
class Picture:
    """An error as a picture.

    Args:
        image: The HTML element.
        title: The classes and the score.
        text: What is wrong, and where.
        label: Name of the class.
        size: COCO's size.
    """

    image: Markup
    title: str
    text: str
    label: str
    size: str


@dataclass(frozen=True)
class Gallery:
    """Pictures of one kind of error.

    Args:
        name: Name of the gallery, part of ids in the page.
        about: What is shown.
        pictures: The pictures, the worst first.
        total: Number of such errors.
    """

    name: str
    about: str
    pictures: Sequence[Picture]
    total: int

    @property
    def labels(self) -> list[str]:
        """Classes of the pictures, in alphabetical order."""
        return sorted({picture.label for picture in self.pictures})

    @property
    def sizes(self) -> list[str]:
        """Sizes of the pictures, in order."""
        return [size for size in OBJECT_SIZES if any(picture.size == size for picture in self.pictures)]


def false_positives(errors: Errors, read: ReadImage) -> Gallery:
    """Return pictures of false positives of high scores.

    Args:
        errors: The errors.
        read: Reads an image.
    """
    rows, found = errors.rows, errors.tide
    is_wrong = (rows.kinds == DETECTION) & (found.error >= 0)
    shown = is_wrong & (rows.scores >= np.float32(errors.score))
    chosen = worst_false_positives(rows, found, errors.score, PICTURES)
    chosen = chosen[np.argsort(-rows.scores[chosen], kind="stable")]
    return Gallery(
        "false-positives",
        f"Wrong detections of score {errors.score:g} or more" if shown.any() else "Wrong detections",
        _pictures(errors, chosen, found.partner, read),
        int((shown if shown.any() else is_wrong).sum()),
    )


def misses(errors: Errors, read: ReadImage) -> Gallery:
    """Return pictures of objects that are not found at the score of the tables.

    Args:
        errors: The errors.
        read: Reads an image.
    """
    rows, found = errors.rows, errors.tide
    is_missed = (rows.kinds == OBJECT) & (object_scores(rows, found) < np.float32(errors.score))
    chosen = worst_misses(rows, found, errors.score, PICTURES)
    rival = rivals(rows, found, errors.score)
    about = f"Objects that no detection of score {errors.score:g} or more finds"
    detections = np.where(rival >= 0, rival, found.partner)
    return Gallery("missed", about, _pictures(errors, chosen, detections, read), int(is_missed.sum()))


def _pictures(errors: Errors, chosen: Array, partners: Array, read: ReadImage) -> list[Picture]:
    """Draw rows until the pictures reach the limit of bytes.

    Args:
        errors: The errors.
        chosen: The rows, all detections or all objects.
        partners: The row that explains each row, -1 for none [R].
        read: Reads an image.
    """
    rows = errors.rows
    sizes, starts = size_index(rows.where(chosen)), np.searchsorted(rows.images, rows.images[chosen])
    ends = np.searchsorted(rows.images, rows.images[chosen], side="right")
    pictures: list[Picture] = []
    left = PICTURE_BYTES
    for row, size, start, end in zip(chosen.tolist(), sizes, starts.tolist(), ends.tolist(), strict=True):
        image_id = int(rows.image_ids[rows.images[row]])
        if (image := read(image_id)) is None:
            continue
        objects = start + np.flatnonzero(rows.kinds[start:end] == OBJECT)
        is_detection, partner = bool(rows.kinds[row] == DETECTION), int(partners[row])
        detection = row if is_detection else partner
        boxes = torch.from_numpy(rows.boxes)
        solid = boxes[detection] if detection >= 0 else None
        drawn = draw_error(image, boxes[objects], solid, None if is_detection else boxes[row], SIDE)
        webp = to_webp(drawn, QUALITY)
        if (left := left - len(webp)) < 0:
            break
        title, text = _about_detection(errors, row) if is_detection else _about_object(errors, row, partner)
        text = f"{text}. Image {image_id}."
        label = _name(errors, row)
        pictures.append(Picture(embedded_image(webp, f"{title}: {text}"), title, text, label, OBJECT_SIZES[size]))
    return pictures


def _about_detection(errors: Errors, row: int) -> tuple[str, str]:
    """Return the title and the text of a wrong detection."""
    rows, found = errors.rows, errors.tide
    kind, partner = int(found.error[row]), int(found.partner[row])
    text = ERRORS[kind]
    if kind == BACKGROUND:
        text += ": no object is here"
    elif kind == BOTH:
        text += ": beside an object of another class"
    else:
        text += f": the object is {_name(errors, partner)}, IoU {_iou(rows.boxes[[row, partner]]):.2f}"
    return f"{_name(errors, row)} {rows.scores[row]:.2f}", text


def _about_object(errors: Errors, row: int, detection: int) -> tuple[str, str]:
    """Return the title and the text of an object that is not found at the score of the tables."""
    rows, found = errors.rows, errors.tide
    width, height = (rows.boxes[row, 2:] - rows.boxes[row, :2]).round().astype(int)
    title = f"{_name(errors, row)}, {width} x {height}"
    if detection < 0:
        return title, "no detection"
    about = f"score {rows.scores[detection]:.2f}, IoU {_iou(rows.boxes[[row, detection]]):.2f}"
    if found.error[detection] >= 0:
        return title, f"{ERRORS[found.error[detection]]}: detected as {_name(errors, detection)}, {about}"
    return title, f"found with a low score only: {about}"


def _name(errors: Errors, row: int) -> str:
    """Return the class of a row."""
    return short(errors.evaluation.class_names[errors.rows.labels[row]])


def _iou(boxes: Array) -> float:
    """Return the IoU of two boxes [2, 4]."""
    return float(paired_iou(*torch.from_numpy(boxes).split(1)))
