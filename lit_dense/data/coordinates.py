"""Boxes whose numbers are no x, y, width and height in pixels: other units, corners, centres."""

import numpy as np
import numpy.typing as npt

from .coco import Bools, Ints
from .problems import KEPT
from .sieve import Sieve

Doubles = npt.NDArray[np.float64]

FAR = 0.05  # of the image's side: who annotates carelessly passes the border by less
SLACK = 1.0  # pixels of rounding, or of counting from 1
SCALES = {100: "percent", 1000: "thousandths"}
PIXELS = "bbox must be x, y, width and height in pixels"


def note_other_units(sieve: Sieve, sizes: Ints) -> Bools:
    """Notes boxes that are written in another way than COCO's. Which of them lie between 0 and 1, [N].

    Each test asks what a whole file looks like, for a single box may always be meant as it is.

    Args:
        sieve: N annotations; those of them that are still good have finite boxes of positive size.
        sizes: Height and width of the image of each, [N, 2].
    """
    good = np.flatnonzero(sieve.keep)
    fractions = np.zeros(len(sizes), bool)
    if not len(good):
        return fractions
    bbox, limits = sieve.table["bbox"][good], sizes[good][:, ::-1].astype(np.float64)
    with np.errstate(over="ignore"):
        unit = ((bbox >= -0.01) & (bbox <= 1.01)).all(1) & (limits.max(1) > 2)
        fractions[good] = unit
        rest = ~unit
        found = _other_way(bbox[rest], limits[rest]) if rest.any() else None
    if unit.any():
        _note_fractions(sieve, fractions, bbox[unit], most=2 * unit.sum() > len(good))
    if found is not None:
        what, which, cure = found
        bad = np.zeros(len(sizes), bool)
        bad[good[rest][which]] = True
        sieve.note(bad, f"boxes that look like {what}", KEPT, sieve.box, cure)
    return fractions


def _note_fractions(sieve: Sieve, fractions: Bools, bbox: Doubles, most: bool) -> None:
    what = "boxes between 0 and 1, which are smaller than a pixel"
    cure = f"{PIXELS}: multiply x and width by the image's width, y and height by its height"
    point, side = bbox[:, :2], bbox[:, 2:]
    if (point + side > 1.01).any():  # not both within the image: the four numbers are others
        if (side > point).all():
            cure += "; the last two look like x2 and y2: subtract x and y from them first"
        elif ((point >= side / 2 - 0.01) & (point + side / 2 <= 1.01)).all():
            cure += "; x and y look like the middle of the box, as in YOLO's files: subtract half of the sides first"
    sieve.note(fractions, what, "" if most else KEPT, sieve.box, cure)


def note_small(sieve: Sieve, sides: Doubles, fractions: Bools, limit: float) -> None:
    """Notes boxes with a side below a pixel.

    Args:
        sieve: N annotations.
        sides: Width and height of each box inside its image, [N, 2].
        fractions: Those that are noted already, [N].
        limit: The smallest length that counts as a pixel.
    """
    small = sieve.keep & ~(sides >= limit).all(1)
    all_small = bool(small.any()) and bool((small | fractions)[sieve.keep].all())
    what = "boxes smaller than a pixel" + (", and there are no others" if all_small else "")
    sieve.note(
        small & ~fractions, what, "" if all_small else KEPT, sieve.box, f"{PIXELS}; if they are, remove these boxes"
    )


def _other_way(bbox: Doubles, limits: Doubles) -> tuple[str, Bools, str] | None:
    """How else the boxes of a file can be meant: in words, which of them show it, [N], and the cure."""
    corner, side, end = bbox[:, :2], bbox[:, 2:], bbox[:, :2] + bbox[:, 2:]
    outside = end > limits * (1 + FAR)
    far = _any(outside)
    as_corners = _all(side > corner)
    for scale, name in SCALES.items():
        for reading, ends in ((end, "x, y, width and height"), (side, "x1, y1, x2 and y2")):
            if (reading is end or as_corners.all()) and _is_scaled(reading, limits, far, scale):
                cure = f"{PIXELS}: these seem to be {ends} in {name} of the image's width and height"
                return f"{name} of the image", np.ones(len(bbox), bool), cure
    as_corners &= _all((side <= limits + SLACK) & (corner >= -SLACK))
    if _mostly(as_corners, far) and (as_corners.all() if far.sum() < 5 else True):
        which = as_corners if as_corners.all() else far & as_corners
        cure = f"{PIXELS}: if these are x1, y1, x2 and y2, write x2 - x1 and y2 - y1 for the last two"
        return "x1, y1, x2, y2", which, cure
    near_start = _any(corner < side / 2 - SLACK)
    past_end = _any(end > limits + SLACK) & _all(corner + side / 2 <= limits + SLACK)
    if past_end.sum() >= 8 and near_start.sum() <= 0.02 * past_end.sum():
        cure = f"{PIXELS}: if x and y are the middle of the box, subtract half the width and height"
        return "middle x, middle y, width, height", past_end, cure
    return None


def _any(rows: Bools) -> Bools:
    return np.asarray(rows.any(axis=1))


def _all(rows: Bools) -> Bools:
    return np.asarray(rows.all(axis=1))


def _mostly(part: Bools, whole: Bools) -> bool:
    return bool(whole.any()) and bool(part[whole].mean() >= 0.9)


def _is_scaled(ends: Doubles, limits: Doubles, far: Bools, scale: float) -> bool:
    """Whether boxes reach up to a round number, whatever the size of their image."""
    reach = ends.max(0) / scale
    if len(ends) < 5 or not ((reach <= 1.005) & (reach >= 0.5)).all():
        return False
    within_large = len(ends) >= 10 and bool((reach >= 0.7).all()) and bool((limits >= 1.5 * scale).all())
    beyond_small = bool(far.mean() >= 0.3) and bool((np.abs(limits / scale - 1) > 0.1).all())
    return within_large or beyond_small


def note_stated_sizes(sieve: Sieve, sizes: Ints, stated: Ints) -> None:
    """Notes boxes that fit the size of the image in the COCO file, and not that of the picture.

    Args:
        sieve: N annotations.
        sizes: Height and width of the picture of each, [N, 2].
        stated: Height and width in the COCO file where they are others, else 0, [N, 2].
    """
    end = (sieve.table["bbox"][:, :2] + sieve.table["bbox"][:, 2:])[:, ::-1]
    misplaced = (end > sizes + SLACK).any(1) & (end <= stated + SLACK).all(1)
    sieve.note(
        misplaced,
        "boxes that fit the size in the COCO file, not that of the picture",
        KEPT,
        lambda row: f"{sieve.box(row)}, the JSON says {_size(stated[row])}, the file is {_size(sizes[row])}",
        "scale or turn the boxes as the pictures were, or use the pictures that were annotated",
    )


def _size(height_and_width: Ints) -> str:
    return f"{height_and_width[1]} x {height_and_width[0]}"
