"""Faster R-CNN in two processes: the gradients of one process with the whole batch."""

import pytest

from lit_dense.detectors import patch
from tests.builders.data_parallel import (
    PISA_OF_ALL,
    SPLITS,
    assert_equal_training,
    share_of,
    train_three_steps,
    weighted,
)
from tests.builders.detectors import COUNTS, random_batch, small_faster_rcnn

EMA = {"class_path": "ema", "init_args": {"initial": 20}}
PARTS = {
    "own": ({}, {}),
    "ghm": ({"loss": "ghm", "box_loss": "ghm_r"}, {"loss": "ghm", "box_loss": "ghm_r"}),
    "eql_v2": ({"loss": "eql_v2"}, {"loss": "eql_v2", "normalizer": EMA}),
    "efl": ({"loss": "efl", "normalizer": EMA}, {"loss": "focal", "box_loss": "giou", "normalizer": "image"}),
    "vfl": ({"loss": "vfl", "box_loss": "giou"}, {"loss": "qfl", "box_loss": "iou"}),
    "softmax": ({"normalizer": "batch", "weighters": ["class_balanced", "ohem"]}, {"weighters": ["target_weights"]}),
    "pisa": ({"loss": "softmax", "weighters": [PISA_OF_ALL]}, {"loss": "bce", "weighters": [PISA_OF_ALL]}),
    "swn": ({"loss": "softmax", "weighters": ["swn"]}, {"loss": "focal", "weighters": ["swn"]}),
}


def _train(share, parts):
    """Three steps of a model in which nothing is drawn by chance."""
    model = small_faster_rcnn(drawn=(10**6, 10**6))
    criteria = [
        patch(model, **arguments, stage=stage, class_counts=COUNTS if stage == "roi" else None)
        for stage, arguments in zip(("roi", "rpn"), PARTS[parts], strict=True)
    ]
    return train_three_steps(model, share, *criteria)


def _batch(split):
    return weighted(*random_batch(sum(SPLITS[split], ()), first_label=1))


def _share_of(rank, split, parts):
    return _train(share_of(rank, SPLITS[split], *_batch(split)), parts)


@pytest.mark.ddp
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("parts", PARTS)
def test_faster_rcnn__gradients_of_two_processes_are_those_of_one(two_processes, parts, split):
    expected, state = _train(_batch(split), parts)
    assert_equal_training(two_processes(_share_of, split, parts), expected, state)
