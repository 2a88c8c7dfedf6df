"""FCOS and SSD in two processes train as in one, whatever their parts."""

import math

import pytest

from lit_dense.detectors import patch, set_box_outputs
from lit_dense.losses import LOSSES
from tests.builders.data_parallel import PARTS, SPLITS, assert_equal_training, share_of, train_three_steps, weighted
from tests.builders.detectors import COUNTS, random_batch, small_fcos, small_ssd

MAKE = {"fcos": small_fcos, "ssd": small_ssd}
FEW = [
    (None, None, None, None),
    ("ghm", "ghm_r", None, ()),
    ("eql_v2", "giou", "ema", ("pisa",)),
    ("qfl", "smooth_l1", None, ("ohem", "target_weights")),
]
ALL = [
    (name, parts)
    for name in MAKE
    for parts in PARTS
    if name != "ssd" or (parts[0] != "seesaw" and parts[1] != "dfl")  # which SSD refuses
]


def _train(name, share, parts):
    loss, box_loss, normalizer, weighters = parts
    extra = LOSSES.build(loss).extra_logits if loss and name == "fcos" else 0
    model = MAKE[name](4 + extra)
    if box_loss is not None:
        set_box_outputs(model, box_loss)
    criterion = patch(model, loss, box_loss, weighters, normalizer, class_counts=COUNTS)
    return train_three_steps(model, share, criterion)


def _batch(name, split):
    return weighted(*random_batch(sum(SPLITS[split], ()), first_label=int(name == "ssd")))


def _share_of(rank, name, split, parts):
    return _train(name, share_of(rank, SPLITS[split], *_batch(name, split)), parts)


def agree(two_processes, name, split, parts):
    expected, state = _train(name, _batch(name, split), parts)
    assert_equal_training(two_processes(_share_of, name, split, parts), expected, state, norm=math.inf)


@pytest.mark.ddp
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("parts", FEW, ids=str)
@pytest.mark.parametrize("name", MAKE)
def test_fcos_and_ssd__gradients_of_two_processes_are_those_of_one(two_processes, name, parts, split):
    agree(two_processes, name, split, parts)


@pytest.mark.slow
@pytest.mark.ddp
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(("name", "parts"), ALL, ids=str)
def test_fcos_and_ssd__gradients_of_two_processes_are_those_of_one_with_all_parts(two_processes, name, parts, split):
    agree(two_processes, name, split, parts)
