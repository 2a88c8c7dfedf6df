"""Whether a learning curve has become flat."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

LAST_PART = 1 / 3
"""The part of the steps whose gain is judged."""
LARGEST_GAIN = 0.05
"""Largest gain of a flat curve, as a share of the final value."""
FEWEST_POINTS = 3

Shape = Literal["flat", "still rising", "not known"]


class Flattening(NamedTuple):
    """How much a curve still rises at its end.

    Args:
        shape: ``still rising`` if the gain is larger than ``LARGEST_GAIN``, else ``flat``; ``not known`` with fewer
            than three validations, or without a final value above 0.
        gain: The gain over the last third of the steps, as a share of the final value; NaN if not known.
    """

    shape: Shape
    gain: float


def flattening(curve: Sequence[Mapping[str, float]], number: str = "map") -> Flattening:
    """Judge whether a learning curve still rises: by more than 5 % of its final value over the last third of the steps.

    Between validations the curve is a straight line. It begins at 0 with step 0.

    Args:
        curve: ``step`` and metrics of each validation, in ascending order of steps.
        number: The metric.
    """
    steps = [0.0, *(float(point["step"]) for point in curve)]
    values = [0.0, *(max(float(point[number]), 0.0) for point in curve)]
    if len(curve) < FEWEST_POINTS or values[-1] <= 0:
        return Flattening("not known", float("nan"))
    before = float(np.interp((1 - LAST_PART) * steps[-1], steps, values))
    gain = (values[-1] - before) / values[-1]
    return Flattening("still rising" if gain > LARGEST_GAIN else "flat", gain)


def mean_curve(curves: Sequence[Sequence[Mapping[str, float]]], number: str = "map") -> list[dict[str, float]]:
    """Return the mean of the curves of several seeds, at the steps that all of them have.

    Args:
        curves: The curve of each seed; at least one.
        number: The metric.
    """
    by_step = [{int(point["step"]): float(point[number]) for point in curve} for curve in curves]
    common = sorted(set.intersection(*(set(values) for values in by_step)))
    return [{"step": step, number: float(np.mean([values[step] for values in by_step]))} for step in common]
