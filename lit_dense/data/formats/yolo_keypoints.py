"""Recognition of YOLO's labels with keypoints or track ids, which could be read as polygons."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ...core.array_types import Bools, Doubles

LEAST = 5  # lines; fewer prove nothing
MOST = 1000  # lines that are inspected
SHARE = 0.95  # of the lines with more than five columns
SLACK = 1e-3  # of the image: rounding


def meaning_of(lines: Sequence[Sequence[float]]) -> tuple[str, str] | None:
    """Return what the lines of a file set seem to be, and the cure; None if they may be polygons.

    All lines must have one number of columns. The polygon of a box with keypoints would have the box's width and height
    as its second point. Keypoints lie in their box, and this point mostly far outside: no outline has such a shape in
    nearly all lines. Values behind each keypoint that are 0, 1 or 2 are its visibility.

    Args:
        lines: The values behind the class of lines with more than five columns.
    """
    lengths = Counter(map(len, lines))
    if not lengths:
        return None
    length, number = lengths.most_common(1)[0]
    if number < LEAST or number < SHARE * len(lines):
        return None
    values = np.array([line for line in lines if len(line) == length], np.float64)
    points = values[:, 4:]
    box = _plausible(values)
    if length == 6 and _nearly_all(box & _track(values)):
        return "a box with a confidence and a track id", "remove the columns behind the fifth"
    for dims in (3, 2):
        count, rest = divmod(length - 4, dims)
        if rest or count < 2:
            continue
        seen = points.reshape(-1, count, dims)
        labelled = _visible(seen)
        fits = box & _inside(values, seen, labelled)
        if dims == 3:
            sure = np.isin(seen[:, :, 2], (0, 1, 2)).all(1) & labelled.any(1)
            found = _nearly_all(fits & sure)
        else:
            # The second point, width and height, is farther from the first than any keypoint is.
            apart = np.asarray((values[:, :2] > 1.5 * values[:, 2:4] + SLACK).any(1))
            found = _nearly_all(fits) and bool((fits & apart).mean() >= 0.5)
        if found:
            cure = f"give kpt_shape: [{count}, {dims}] in data.yaml, or remove the columns behind the fifth"
            return "a box with keypoints", cure
    return None


def _plausible(values: Doubles) -> Bools:
    """Return whether the first four values are a box in the image, [N]."""
    middle, sides = values[:, :2], values[:, 2:4]
    inside = (middle - sides / 2 >= -SLACK) & (middle + sides / 2 <= 1 + SLACK) & (sides > 0)
    return np.asarray(inside.all(1))


def _visible(points: Doubles) -> Bools:
    """Return whether each keypoint is labelled, [N, K]: keypoints without a label are zeros."""
    return np.asarray((points != 0).any(2) if points.shape[2] == 2 else points[:, :, 2] > 0)


def _inside(values: Doubles, points: Doubles, labelled: Bools) -> Bools:
    """Return whether all labelled keypoints lie in their box, [N]; there must be one."""
    distance = np.abs(points[:, :, :2] - values[:, None, :2])
    inside = (distance <= values[:, None, 2:4] / 2 * 1.1 + SLACK).all(2)
    return np.asarray((inside | ~labelled).all(1) & labelled.any(1))


def _track(values: Doubles) -> Bools:
    """Return whether the last two of six values are a confidence and a whole number, [N]."""
    score, number = values[:, 4], values[:, 5]
    whole = (number >= 0) & (number == np.floor(number))
    return np.asarray(whole & (score > 0) & (score <= 1))


def _nearly_all(rows: Bools) -> bool:
    return bool(rows.mean() >= SHARE)
