import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_dense.data import stratified_split


@given(st.integers(1, 60), st.integers(0, 6), st.floats(0.01, 0.95), st.integers(0, 5))
def test_stratified_split__every_image_is_on_one_side_and_both_sides_have_some(images, classes, share, seed):
    presence = np.random.default_rng(seed).random((images, classes)) < 0.3
    train, val = stratified_split(presence, share, seed)
    assert sorted(train.tolist() + val.tolist()) == list(range(images))
    if images > 1:
        assert len(train)
        assert len(val)
    again = stratified_split(presence, share, seed)
    assert train.tolist() == again[0].tolist()


def test_stratified_split__another_seed_is_another_split():
    presence = np.random.default_rng(0).random((100, 3)) < 0.5
    splits = {tuple(stratified_split(presence, 0.2, seed)[1].tolist()) for seed in range(5)}
    assert len(splits) == 5


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_stratified_split__long_tailed_classes_keep_their_share(share):
    rng = np.random.default_rng(0)
    frequency = np.array([0.6, 0.3, 0.1, 0.05, 0.02, 0.01, 0.005])
    presence = rng.random((2000, 7)) < frequency
    _, val = stratified_split(presence, share, seed=0)
    assert abs(len(val) - share * 2000) <= 8
    wanted = share * presence.sum(0)
    assert (np.abs(presence[val].sum(0) - wanted) <= np.maximum(2, 0.02 * wanted)).all()
    empty = ~presence.any(1)
    assert abs(empty[val].sum() - share * empty.sum()) <= 2


def test_stratified_split__a_class_with_a_single_image_is_trained_on():
    presence = np.zeros((50, 30), bool)
    presence[np.arange(30), np.arange(30)] = True
    train, _ = stratified_split(presence, 0.4, seed=0)
    assert presence[train].any(0).all()


def test_stratified_split__groups_stay_together_and_single_images_change_nothing():
    presence = np.random.default_rng(0).random((60, 4)) < 0.3
    alone = stratified_split(presence, 0.25, seed=0)
    for part, same in zip(alone, stratified_split(presence, 0.25, 0, np.arange(60)), strict=True):
        assert part.tolist() == same.tolist()
    groups = np.arange(60) % 20
    train, val = stratified_split(presence, 0.25, 0, groups)
    assert sorted([*train, *val]) == list(range(60))
    assert len(val) == 15
    assert not set(groups[train]) & set(groups[val])
    assert [len(part) for part in stratified_split(presence, 0.25, 0, np.zeros(60, np.int64))] == [60, 0]
