import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_dense.samplers import ClassAwareSampler
from tests.builders.coco_data import CATEGORY_IDS, drawn, images_showing

IMAGES = st.lists(st.lists(st.integers(0, 2), max_size=3), min_size=1, max_size=25)


def test_class_aware_sampler__classes_of_unlike_size_are_drawn_equally_often():
    data = images_showing(*[[0]] * 24, *[[1]] * 5, [2])
    counts = drawn(ClassAwareSampler(), data)
    assert [counts[:24].sum(), counts[24:29].sum(), counts[29]] == [10, 10, 10]
    assert counts[:24].max() == 1  # ten of 24: no image of this class twice
    assert counts[24:29].tolist() == [2] * 5  # ten of five: each twice


@given(IMAGES, st.integers(0, 3))
def test_class_aware_sampler__an_image_without_objects_is_drawn_once_and_an_epoch_has_as_many_draws_as_images(
    labels, epoch
):
    counts = drawn(ClassAwareSampler(), images_showing(*labels), epoch)
    empty = np.array([not found for found in labels])
    assert counts[empty].tolist() == [1] * empty.sum()
    assert counts.sum() == len(labels)


def test_class_aware_sampler__images_without_objects_come_anywhere_in_the_epoch():
    data = images_showing(*[[0]] * 6, *[[]] * 3)
    rngs = [np.random.default_rng(seed) for seed in range(200)]
    places = np.array([ClassAwareSampler().order(data, CATEGORY_IDS, rng) for rng in rngs]) >= 6
    assert set(places.sum(1)) == {3}
    np.testing.assert_allclose(places.mean(0), 1 / 3, atol=0.15)  # a standard error of 0.033


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 3))
def test_class_aware_sampler__the_last_round_of_classes_may_be_cut(first, second, epoch):
    counts = drawn(ClassAwareSampler(), images_showing(*[[0]] * first, *[[2]] * second), epoch)
    assert abs(counts[:first].sum() - counts[first:].sum()) == (first + second) % 2
    for of_class in (counts[:first], counts[first:]):
        assert of_class.max() - of_class.min() <= 1  # a cycle: none comes twice more than another


def test_class_aware_sampler__an_image_of_two_classes_takes_the_turns_of_both():
    counts = drawn(ClassAwareSampler(), images_showing([0, 1], [1], [1], [1], [1], [1]))
    assert counts[0] >= 3  # all of class 0's turns


def test_class_aware_sampler__each_round_has_its_own_order():
    data = images_showing(*[[0]] * 30, *[[1]] * 3)
    order = ClassAwareSampler().order(data, CATEGORY_IDS, np.random.default_rng(0))
    rare = order[order >= 30]
    rounds = {tuple(rare[start : start + 3]) for start in range(0, 15, 3)}
    assert all(sorted(found) == [30, 31, 32] for found in rounds)
    assert len(rounds) > 1
    classes = (order >= 30)[:32].reshape(16, 2)
    assert set(classes.sum(1)) == {1}
    assert len(set(classes[:, 0])) == 2


@pytest.mark.parametrize(("labels", "crowds"), [([[], []], []), ([[0], [1]], [0, 1])])
def test_class_aware_sampler__without_any_object_shuffles(labels, crowds):
    assert drawn(ClassAwareSampler(), images_showing(*labels, crowds=crowds)).tolist() == [1, 1]


def test_class_aware_sampler__an_epoch_follows_from_its_seed():
    data = images_showing(*[[0]] * 20, *[[1]] * 4)
    orders = [tuple(ClassAwareSampler().order(data, CATEGORY_IDS, np.random.default_rng(s))) for s in (1, 2, 1)]
    assert orders[0] == orders[2]
    assert orders[0] != orders[1]
