import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_dense.core.errors import UsageError
from lit_dense.samplers import RepeatFactorSampler, repeat_factors
from lit_dense.samplers.repeat_factor_sampler import class_factors
from tests.builders.coco_data import CATEGORY_IDS, drawn, images_showing

IMAGES = st.lists(st.lists(st.integers(0, 2), max_size=4), min_size=1, max_size=25)

# Class 0 is in 8 of 16 images, class 1 in 4, class 2 in 1; four images show none.
LABELS = [[0]] * 7 + [[0, 1, 1]] + [[1]] * 3 + [[2, 2, 2]] + [[]] * 4


def factors_image_by_image(labels, threshold):
    """The three steps of detectron2's RepeatFactorTrainingSampler, in its words."""
    share = {c: sum(c in found for found in labels) / len(labels) for c in {c for found in labels for c in found}}
    of_category = {c: max(1.0, math.sqrt(threshold / f)) for c, f in share.items()}
    return [max((of_category[c] for c in found), default=1.0) for found in labels]


def test_repeat_factors__worked_out_by_hand():
    presence = images_showing(*LABELS).presence(CATEGORY_IDS)
    # t = 1: sqrt(1 / (8/16)) = sqrt(2), sqrt(1 / (4/16)) = 2, sqrt(1 / (1/16)) = 4
    expected = [2**0.5] * 7 + [2] * 4 + [4] + [1] * 4
    np.testing.assert_allclose(repeat_factors(presence, 1.0), expected, rtol=1e-14)
    # t = 1/4: class 1 is just at the threshold, sqrt((1/4) / (1/16)) = 2
    np.testing.assert_allclose(repeat_factors(presence, 0.25), [1] * 11 + [2] + [1] * 4, rtol=1e-14)
    assert repeat_factors(presence, 0.0).tolist() == [1] * 16


@given(IMAGES, st.floats(0, 1))
def test_repeat_factors__equal_those_image_by_image(labels, threshold):
    presence = images_showing(*labels).presence(CATEGORY_IDS)
    np.testing.assert_allclose(repeat_factors(presence, threshold), factors_image_by_image(labels, threshold))


def test_repeat_factors__crowds_do_not_make_a_class_present():
    data = images_showing([0], [0], [0], [2], crowds=[3])
    assert repeat_factors(data.presence(CATEGORY_IDS), 1.0).max() == pytest.approx((4 / 3) ** 0.5)


@pytest.mark.filterwarnings("ignore:repeat_factor repeats no image")
@given(IMAGES, st.floats(0, 1), st.integers(0, 5))
def test_repeat_factor_sampler__an_epoch_rounds_each_factor_up_or_down_and_is_always_equally_long(
    labels, threshold, epoch
):
    factors = np.array(factors_image_by_image(labels, threshold))
    counts = drawn(RepeatFactorSampler(threshold), images_showing(*labels), epoch)
    total = counts.sum()
    assert factors.sum() - 1e-6 <= total < factors.sum() + 1 + 1e-6
    assert total == drawn(RepeatFactorSampler(threshold), images_showing(*labels), 99).sum()
    scaled = factors * total / factors.sum()
    assert (counts >= np.floor(scaled - 1e-6)).all()
    assert (counts <= np.ceil(scaled + 1e-6)).all()
    assert counts.min() >= 1


def test_repeat_factor_sampler__over_many_epochs_images_are_drawn_in_proportion_to_their_factors():
    # sum 7 sqrt(2) + 4 * 2 + 4 + 4 = 25.9: 26 draws
    counts = np.array([drawn(RepeatFactorSampler(1.0), images_showing(*LABELS), epoch) for epoch in range(2000)])
    factors = np.array(factors_image_by_image(LABELS, 1.0))
    assert set(counts.sum(1)) == {26}
    # a mean of 2000 roundings has a standard error of at most 0.011
    np.testing.assert_allclose(counts.mean(0), factors * 26 / factors.sum(), atol=0.045)
    assert {tuple(np.unique(column)) for column in counts[:, :7].T} == {(1, 2)}


def test_repeat_factor_sampler__any_two_images_may_be_repeated_in_the_same_epoch():
    labels = [[0]] * 4 + [[1]] * 2  # class 1: sqrt(0.75 / (2/6)) = 1.5
    counts = [drawn(RepeatFactorSampler(0.75), images_showing(*labels), epoch)[4:] for epoch in range(200)]
    assert {tuple(pair) for pair in counts} >= {(1, 2), (2, 1), (2, 2)}


def test_repeat_factor_sampler__images_come_in_another_order_each_epoch_and_the_same_for_the_same_seed():
    data = images_showing(*LABELS)

    def order(*seeds):
        return tuple(RepeatFactorSampler(1.0).order(data, CATEGORY_IDS, np.random.default_rng(seeds)))

    orders = {(seed, epoch): order(seed, epoch) for seed in range(3) for epoch in range(3)}
    assert len(set(orders.values())) == 9
    assert orders[1, 2] == order(1, 2)
    first_places = [order(0, epoch)[0] for epoch in range(400)]
    assert set(first_places) == set(range(16))


def test_repeat_factor_sampler__warns_that_nothing_is_repeated():
    data = images_showing([0], [0, 1], [1], [])
    with pytest.warns(
        UserWarning, match=r"no class is in less than a fraction of 0\.001 of the 4 .*the rarest is in 0\.5"
    ):
        assert drawn(RepeatFactorSampler(), data).tolist() == [1, 1, 1, 1]
    with pytest.warns(UserWarning, match="of the 2 training images. Raise"):
        assert drawn(RepeatFactorSampler(1.0), images_showing([], [])).tolist() == [1, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn(RepeatFactorSampler(0.6), data)


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_repeat_factor_sampler__a_threshold_is_a_share(threshold):
    with pytest.raises(UsageError, match=rf"repeat_factor: threshold must be in \[0, 1\], not {threshold}"):
        RepeatFactorSampler(threshold)


IMAGE_SHARES, INSTANCE_SHARES = np.array([0.9, 0.03, 0.002]), np.array([50000, 900, 20]) / 50920


@pytest.mark.parametrize(
    ("method", "threshold", "expected"),
    [
        ("rfs", 0.001, [1, 1, 1]),
        ("irfs", 0.001, [1, 1, 1.062202]),
        ("e_irfs", 0.0001, [1.020842, 1.140879, 1.957749]),
    ],
)
def test_class_factors__worked_values(method, threshold, expected):
    found = class_factors(IMAGE_SHARES, INSTANCE_SHARES, threshold, method)
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_class_factors__equal_frequencies_give_those_of_rfs_and_the_exponential_has_a_limit():
    share = np.array([0.5, 0.01, 1e-6])
    np.testing.assert_allclose(class_factors(share, share, 0.01, "irfs"), class_factors(share, share, 0.01))
    assert class_factors(share, share, 0.0001, "e_irfs")[2] == 10


def test_repeat_factor_sampler__irfs_counts_boxes_without_crowds():
    # class 1 is in 2 of 4 images with 6 of 8 boxes: f = sqrt(1/2 * 6/8); class 2 in one image with one box
    data = images_showing([1] * 5, [1], [2], [0])
    counts = drawn(RepeatFactorSampler(1.0, "irfs"), data)
    factors = [(1 / (0.5 * 0.75) ** 0.5) ** 0.5] * 2 + [(1 / (0.25 * 0.125) ** 0.5) ** 0.5] * 2
    assert counts.sum() == math.ceil(sum(factors))
    assert counts.tolist()[2] in (2, 3)


def test_repeat_factor_sampler__an_unknown_method():
    with pytest.raises(UsageError, match=r"method must be one of rfs, irfs, e_irfs, not 'ifrs'\. Did you mean"):
        RepeatFactorSampler(method="ifrs")
