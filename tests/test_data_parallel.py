"""Gradients of two processes against one: the promise that every loss, weighter and normalizer keeps."""

import pytest

from lit_dense.box_losses import BOX_LOSSES
from lit_dense.criterion import Criterion
from lit_dense.detectors import patch, set_box_outputs
from lit_dense.losses import LOSSES
from lit_dense.normalizers import NORMALIZERS
from lit_dense.weighters import WEIGHTERS
from tests.builders.data_parallel import (
    OWN_ARGUMENTS,
    PARTS,
    SPLITS,
    assert_equal_training,
    share_of,
    train_three_steps,
    weighted,
)
from tests.builders.detectors import COUNTS, NUM_CLASSES, random_batch, small_retinanet

OWN_NORMALIZER = ("ghm", "ap", "alrp", "rs")
"""Losses that divide by a number of their own."""


def _diagonal():
    """Every loss, box loss, normalizer and weighter in every split, several in one case, as few as that takes."""
    losses, box_losses, normalizers = list(LOSSES.points), list(BOX_LOSSES.points), list(NORMALIZERS.points)
    for turn, split in enumerate(SPLITS):
        for number in range(max(len(losses), len(box_losses), len(normalizers))):
            loss, box_loss, normalizer = (
                group[(number + turn * (group is not losses)) % len(group)]
                for group in (losses, box_losses, normalizers)
            )
            bring_their_own = loss in OWN_NORMALIZER or box_loss == "ghm_r"
            if loss in OWN_NORMALIZER and box_loss == "ghm_r" and loss != "ghm":  # both decide the balance of boxes
                yield ("focal", box_loss, None, ()), split
                box_loss = "l1"
            yield (loss, box_loss, None if bring_their_own else normalizer, ()), split
            if bring_their_own:
                yield ("focal", "l1", normalizer, ()), split
        for number, weighter in enumerate(WEIGHTERS.points, start=turn):
            loss = ("focal", "qfl", "focal" if weighter == "cleanliness" else "ghm")[number % 3]
            loss = "asl" if weighter == "dw" else loss  # the others do not take its weights
            yield (loss, ("l1", "giou")[number % 2], None, (weighter,)), split
        yield from ((parts, split) for parts in OWN_ARGUMENTS[turn :: len(SPLITS)])


def _train(share, parts):
    model = small_retinanet(NUM_CLASSES + Criterion(parts[0]).loss.extra_logits)
    set_box_outputs(model, parts[1])
    criterion = patch(model, *parts[:2], normalizer=parts[2], weighters=parts[3], class_counts=COUNTS)
    return train_three_steps(model, share, criterion)


def _batch(split):
    return weighted(*random_batch(sum(SPLITS[split], ())))


def _share_of(rank, split, parts):
    return _train(share_of(rank, SPLITS[split], *_batch(split)), parts)


def _named(parts):
    return "-".join(str(part) for part in parts)


def _check_gradients(two_processes, parts, split):
    expected, state = _train(_batch(split), parts)
    assert_equal_training(two_processes(_share_of, split, parts), expected, state)


@pytest.mark.ddp
@pytest.mark.parametrize(
    ("parts", "split"), _diagonal(), ids=lambda value: value if isinstance(value, str) else _named(value)
)
def test_criterion__gradients_of_two_processes_are_those_of_one(two_processes, parts, split):
    _check_gradients(two_processes, parts, split)


@pytest.mark.slow
@pytest.mark.ddp
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("parts", PARTS, ids=_named)
def test_criterion__gradients_of_two_processes_are_those_of_one_in_every_combination(two_processes, parts, split):
    _check_gradients(two_processes, parts, split)


@pytest.mark.parametrize("split", SPLITS)
def test_diagonal__has_every_part_in_every_split(split):
    chosen = [parts for parts, its_split in _diagonal() if its_split == split]
    for place, registry in enumerate((LOSSES, BOX_LOSSES, NORMALIZERS)):
        assert set(registry.points) <= {parts[place] for parts in chosen if isinstance(parts[place], str)}
    assert set(WEIGHTERS.points) <= {name for parts in chosen for name in parts[3] if isinstance(name, str)}
