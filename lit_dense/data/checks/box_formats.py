"""Checks for boxes that are not x, y, width and height in pixels: other units, corners, centres."""

import numpy as np

from ...core.array_types import Bools, Doubles, Ints
from ..problems import KEPT
from .annotation_filter import AnnotationFilter

FAR = 0.05  # share of the image's side; careless annotations exceed the border by less
SLACK = 1.0  # pixels; allows for rounding and for counting from 1
SCALES = {100: "percent", 1000: "thousandths"}


def note_other_units(annotations: AnnotationFilter, sizes: Ints) -> Bools:
    """Report boxes in another format than COCO's.

    Each test considers all boxes of a file, because a single box is never conclusive.

    Args:
        annotations: N annotations; valid annotations have finite boxes of positive size.
        sizes: Height and width of the image of each annotation, [N, 2].

    Returns:
        Whether a box lies between 0 and 1, bool [N].
    """
    good = np.flatnonzero(annotations.keep)
    fractions = np.zeros(len(sizes), bool)
    if not len(good):
        return fractions
    bbox, limits = annotations.table["bbox"][good], sizes[good][:, ::-1].astype(np.float64)
    if not annotations.wording.pixels:
        _note_other_shares(annotations, good, bbox, limits)
        return fractions
    with np.errstate(over="ignore"):
        unit = ((bbox >= -0.01) & (bbox <= 1.01)).all(1) & (limits.max(1) > 2)
        fractions[good] = unit
        rest = ~unit
        other = _other_format(bbox[rest], limits[rest]) if rest.any() and annotations.wording.xywh else None
    if unit.any():
        _note_fractions(annotations, fractions, bbox[unit], most=2 * unit.sum() > len(good))
    if other is not None:
        what, which, cure = other
        cure = f"{annotations.wording.box}: {cure}"
        bad = np.zeros(len(sizes), bool)
        bad[good[rest][which]] = True
        annotations.note(bad, f"boxes that look like {what}", KEPT, annotations.box, cure)
    return fractions


def _note_other_shares(annotations: AnnotationFilter, good: Ints, bbox: Doubles, limits: Doubles) -> None:
    """Report shares of the image that were written as corners, or from the upper left corner.

    Args:
        annotations: The annotations, whose boxes were written as middle, width and height.
        good: The M rows of valid annotations.
        bbox: Their boxes, x, y, width and height in pixels, [M, 4].
        limits: Width and height of their images, [M, 2].
    """
    point, side = bbox[:, :2] + bbox[:, 2:] / 2, bbox[:, 2:]  # as written, in pixels
    far = _any((bbox[:, :2] < -FAR * limits) | (bbox[:, :2] + side > (1 + FAR) * limits))
    within = _all((point >= -SLACK) & (side <= limits + SLACK))
    if far.sum() < 3 or within.mean() < 0.98:
        return
    chance = (side / 2 / (limits - side).clip(min=1)).clip(0, 1)
    near_end = _any(point + side > limits + SLACK)
    expected = (1 - (1 - chance).prod(1)).sum()  # the number of boxes so near to the end if point is the middle
    if _all(side > point).mean() >= 0.98:
        what, cure = "x1, y1, x2, y2", "write (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1 and y2 - y1"
    elif expected >= 4 and near_end.sum() <= 0.02 * expected:
        what, cure = "x, y, width, height", "if x and y are the upper left corner, add half of the width and height"
    else:
        return
    bad = np.zeros(len(annotations.table), bool)
    bad[good] = True
    what = f"boxes that look like {what} in shares of the image"
    annotations.note(bad, what, KEPT, annotations.box, f"{annotations.wording.box}: {cure}")


def _note_fractions(annotations: AnnotationFilter, fractions: Bools, bbox: Doubles, most: bool) -> None:
    what = "boxes between 0 and 1, which are smaller than a pixel"
    cure = f"{annotations.wording.box}: multiply x and width by the image's width, y and height by its height"
    point, side = bbox[:, :2], bbox[:, 2:]
    # x + width exceeds the image: the numbers have another meaning
    if annotations.wording.xywh and (point + side > 1.01).any():
        if (side > point).all():
            cure += "; the last two look like x2 and y2: subtract x and y from them first"
        elif ((point >= side / 2 - 0.01) & (point + side / 2 <= 1.01)).all():
            cure += "; x and y look like the middle of the box, as in YOLO's files: subtract half of the sides first"
    annotations.note(fractions, what, "" if most else KEPT, annotations.box, cure)


def note_small(annotations: AnnotationFilter, sides: Doubles, fractions: Bools, limit: float) -> None:
    """Report boxes with a side below a pixel.

    Args:
        annotations: N annotations.
        sides: Width and height of each box inside its image, [N, 2].
        fractions: Whether a box was reported as lying between 0 and 1, bool [N].
        limit: The smallest length that counts as a pixel.
    """
    small = annotations.keep & ~(sides >= limit).all(1)
    all_small = bool(small.any()) and bool((small | fractions)[annotations.keep].all())
    what = "boxes smaller than a pixel" + (", and there are no others" if all_small else "")
    annotations.note(
        small & ~fractions,
        what,
        "" if all_small else KEPT,
        annotations.box,
        f"{annotations.wording.box}; if it is, remove these boxes",
    )


def _other_format(bbox: Doubles, limits: Doubles) -> tuple[str, Bools, str] | None:
    """Detect another box format: returns its name, the boxes that indicate it, [N], and the advice."""
    return _as_scaled(bbox, limits) or _as_corners(bbox, limits) or _as_centres(bbox, limits)


def _as_scaled(bbox: Doubles, limits: Doubles) -> tuple[str, Bools, str] | None:
    corner, side = bbox[:, :2], bbox[:, 2:]
    far = _far_outside(bbox, limits)
    for scale, name in SCALES.items():
        for ends, meant in ((corner + side, "x, y, width and height"), (side, "x1, y1, x2 and y2")):
            if (ends is not side or (side > corner).all()) and _reaches(ends, limits, far, scale):
                cure = f"these seem to be {meant} in {name} of the image's width and height"
                return f"{name} of the image", np.ones(len(bbox), bool), cure
    return None


def _reaches(ends: Doubles, limits: Doubles, far: Bools, scale: float) -> bool:
    """Return whether the coordinates end at a round number regardless of the image size."""
    reach = ends.max(0) / scale
    if len(ends) < 5 or not ((reach <= 1.005) & (reach >= 0.5)).all():
        return False
    within_large = len(ends) >= 10 and bool((reach >= 0.7).all()) and bool((limits >= 1.5 * scale).all())
    beyond_small = bool(far.mean() >= 0.3) and bool((np.abs(limits / scale - 1) > 0.1).all())
    return within_large or beyond_small


def _as_corners(bbox: Doubles, limits: Doubles) -> tuple[str, Bools, str] | None:
    """Detect corners: the boxes that exceed the border fit as corners, and the other boxes are possible as corners."""
    corner, side = bbox[:, :2], bbox[:, 2:]
    far = _far_outside(bbox, limits)
    possible = _all((side <= limits + SLACK) & (corner >= -SLACK))
    fits = _all(side > corner) & possible
    if not far.any() or fits[far].mean() < 0.9 or possible.mean() < 0.98 or (far.sum() < 5 and not fits.all()):
        return None
    cure = "if these are x1, y1, x2 and y2, write x2 - x1 and y2 - y1 for the last two"
    return "x1, y1, x2, y2", fits if fits.all() else far & fits, cure


def _as_centres(bbox: Doubles, limits: Doubles) -> tuple[str, Bools, str] | None:
    """Detect centres: the boxes that exceed the border fit as centres, and none is too near the other borders.

    Random corners would be nearer to the left or upper border than half the side in some cases.
    """
    corner, side = bbox[:, :2], bbox[:, 2:]
    past_end = _any(corner + side > limits + SLACK)
    near = side / 2 - SLACK
    chance = (near / (limits - side).clip(min=1)).clip(0, 1)
    expected = (1 - (1 - chance).prod(1)).sum()
    avoided = expected >= 4 and _any(corner < near).sum() <= 0.02 * expected
    if past_end.sum() < 3 or not avoided or _all(corner + side / 2 <= limits + SLACK).mean() < 0.98:
        return None
    cure = "if x and y are the middle of the box, subtract half the width and height"
    return "middle x, middle y, width, height", past_end, cure


def _far_outside(bbox: Doubles, limits: Doubles) -> Bools:
    return _any(bbox[:, :2] + bbox[:, 2:] > limits * (1 + FAR))


def _any(rows: Bools) -> Bools:
    return np.asarray(rows.any(axis=1))


def _all(rows: Bools) -> Bools:
    return np.asarray(rows.all(axis=1))


def note_stated_sizes(annotations: AnnotationFilter, sizes: Ints, stated: Ints) -> None:
    """Report boxes that fit the image size in the COCO file, but not the size of the image file.

    Args:
        annotations: N annotations.
        sizes: Height and width of the image file of each annotation, [N, 2].
        stated: Height and width in the COCO file if they differ, else 0, [N, 2].
    """
    end = (annotations.table["bbox"][:, :2] + annotations.table["bbox"][:, 2:])[:, ::-1]
    misplaced = (end > sizes + SLACK).any(1) & (end <= stated + SLACK).all(1)
    words = annotations.wording

    def describe(row: int) -> str:
        says = f"the {words.file} says {_size(stated[row])}"
        return f"{annotations.box(row)}, {says}, the file is {_size(sizes[row])}"

    annotations.note(
        misplaced,
        f"boxes that fit the size in the {words.whole}, not that of the image file",
        KEPT,
        describe,
        "scale or rotate the boxes as the images were, or use the images that were annotated",
    )


def _size(height_and_width: Ints) -> str:
    return f"{height_and_width[1]} x {height_and_width[0]}"
