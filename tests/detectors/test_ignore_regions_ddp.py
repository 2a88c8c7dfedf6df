"""Ignore regions in two processes, of which one may have none, train as in one."""

import math

import pytest
import torch

from lit_dense.detectors.ignore_regions import IGNORE_BOXES
from tests.builders.data_parallel import SPLITS, assert_equal_training, share_of, train_patched, weighted
from tests.builders.detectors import random_batch, small_fcos, small_retinanet, small_ssd

CASES = {
    "retinanet": (small_retinanet, "ghm", "ghm_r", None, ()),
    "fcos": (small_fcos, "focal", "giou", "ema", ("pisa", "soft_background")),
    "ssd": (small_ssd, None, None, None, None),
}


def _batch(name, split):
    images, targets = weighted(*random_batch(sum(SPLITS[split], ()), first_label=int(name == "ssd")))
    targets[0][IGNORE_BOXES] = torch.tensor([[0.0, 0, 40, 64], [30, 30, 64, 64]])
    return images, targets


def _share_of(rank, name, split):
    return train_patched(CASES[name], share_of(rank, SPLITS[split], *_batch(name, split)))


@pytest.mark.ddp
@pytest.mark.parametrize("split", ["one rank empty", "unequal"])
@pytest.mark.parametrize("name", CASES)
def test_ignore_regions__gradients_of_two_processes_are_those_of_one(two_processes, name, split):
    expected, state = train_patched(CASES[name], _batch(name, split))
    assert_equal_training(two_processes(_share_of, name, split), expected, state, norm=math.inf)
