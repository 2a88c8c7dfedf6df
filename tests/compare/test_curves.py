"""Which learning curves are called flat."""

import numpy as np
import pytest

from lit_dense.compare.curves import flattening, mean_curve


def curve(values, steps=None):
    return [{"step": s, "map": v} for s, v in zip(steps or range(100, 100 * len(values) + 1, 100), values, strict=True)]


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        ([0.1, 0.2, 0.3], "still rising"),
        ([0.3, 0.4, 0.41], "flat"),  # gains 2 %
        ([0.3, 0.381, 0.40], "flat"),
        ([0.3, 0.37, 0.40], "still rising"),
        ([0.3, 0.5, 0.4], "flat"),  # falls
        ([0.2, 0.43, 0.475, 0.48], "flat"),
        ([0.2, 0.3, 0.35, 0.38], "still rising"),
        ([0.001, 0.002, 0.004], "still rising"),  # a small AP is judged like a large one
        ([0.0, 0.0, 0.0], "not known"),
        ([0.2, -1.0, -1.0], "not known"),  # no AP
        ([0.1, 0.4], "not known"),
        ([], "not known"),
    ],
)
def test_flattening__is_the_gain_over_the_last_third(values, shape):
    assert flattening(curve(values)).shape == shape


@pytest.mark.parametrize("validations", [3, 6, 12, 60])
@pytest.mark.parametrize(("pace", "shape"), [(3.0, "still rising"), (8.0, "flat")])
def test_flattening__does_not_depend_on_the_number_of_validations(validations, pace, shape):
    steps = [round(600 * (number + 1) / validations) for number in range(validations)]
    values = [0.5 * (1 - np.exp(-pace * step / 600)) for step in steps]
    found = flattening(curve(values, steps))
    assert found.shape == shape
    whole = (np.exp(-2 / 3 * pace) - np.exp(-pace)) / (1 - np.exp(-pace))
    assert found.gain == pytest.approx(whole, abs=0.01)


def test_flattening__the_gain_is_read_between_validations():
    found = flattening(curve([0.2, 0.4, 0.5, 0.6], [100, 200, 250, 400]))
    assert found.gain == pytest.approx((0.6 - (0.5 + 0.1 * (400 * 2 / 3 - 250) / 150)) / 0.6)


def test_flattening__another_number():
    points = [{"step": s, "map": m, "map_50": m50} for s, m, m50 in ((1, 0.1, 0.5), (2, 0.2, 0.5), (3, 0.3, 0.5))]
    assert (flattening(points).shape, flattening(points, "map_50").shape) == ("still rising", "flat")


def test_mean_curve__is_that_of_the_steps_that_all_seeds_have():
    found = mean_curve([curve([0.1, 0.3], [10, 20]), curve([0.2, 0.5, 0.9], [10, 20, 25])])
    assert [point["step"] for point in found] == [10, 20]
    assert [point["map"] for point in found] == pytest.approx([0.15, 0.4])
    assert mean_curve([curve([0.1], [1]), curve([0.1], [2])]) == []
