import itertools
import warnings
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import SequentialSampler

from lit_dense.data import EpochSampler, ResumableLoader


@pytest.fixture
def make_loader():
    def make(sampler=None, **options):
        data = list(range(10))
        chosen = sampler or EpochSampler(Items(data), seed=1)
        return ResumableLoader(Items(data), 3, sampler=chosen, collate_fn=list, drop_last=True, **options)

    return make


class Items(list):
    """Hands out what it is asked for."""

    def __getitem__(self, item):
        return item


@pytest.mark.parametrize("workers", [0, 2])
def test_resumable_loader__goes_on_where_another_stopped(make_loader, workers):
    options = {"num_workers": workers, "persistent_workers": workers > 0}
    first = make_loader(**options)
    first.sampler.set_epoch(4)
    whole = list(first)
    again = iter(first)
    seen = [next(again), next(again)]
    state = first.state_dict()
    assert state == {"epoch": 4, "drawn": 6, "batch_size": 3, "processes": 1, "draws": 10, "seed": 1}

    second = make_loader(**options)
    second.load_state_dict(state)
    assert second.state_dict() == state
    iterator = iter(second)  # as a trainer does: first the iterator, then the epoch
    second.sampler.set_epoch(4)
    assert seen + list(iterator) == whole
    assert len(second) == 3
    assert list(second) == whole  # once only


def test_resumable_loader__another_epoch_starts_at_its_beginning(make_loader):
    loader = make_loader()
    loader.load_state_dict({"epoch": 4, "batches": 2})
    loader.sampler.set_epoch(5)
    assert len(list(loader)) == 3
    loader.sampler.set_epoch(4)
    assert len(list(loader)) == 3


def test_resumable_loader__an_abandoned_iterator_leaves_nothing_behind(make_loader):
    loader = make_loader()
    assert next(iter(loader)) == next(iter(loader))


def test_resumable_loader__a_finished_epoch_has_nothing_left(make_loader):
    loader = make_loader()
    loader.load_state_dict({"epoch": 0, "batches": 3})
    assert list(loader) == []
    assert len(list(loader)) == 3


def test_resumable_loader__takes_another_sampler_as_it_is(make_loader):
    loader = make_loader(SequentialSampler(range(10)))
    assert list(loader) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def loaders(size, batch_size, world_size, seed=1, epoch=2):
    """The loaders of all processes of one run."""
    drop_last = size >= batch_size * world_size
    made = []
    for rank in range(world_size):
        sampler = EpochSampler(Items(range(size)), world_size, rank, seed, drop_last)
        sampler.set_epoch(epoch)
        made.append(
            ResumableLoader(Items(range(size)), batch_size, sampler=sampler, collate_fn=list, drop_last=drop_last)
        )
    return made


def stopped_after_4_of_10():
    (loader,) = loaders(10, 1, 1)
    iterator = iter(loader)
    for _ in range(4):
        next(iterator)
    return loader


def resumed(state, *arguments, **options):
    """What the processes of a resumed run draw: batches of each."""
    made = loaders(*arguments, **options)
    for loader in made:
        loader.load_state_dict(state)
        loader.sampler.set_epoch(loader.sampler.epoch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [list(loader) for loader in made]


@given(st.integers(1, 40), st.data())
def test_resumable_loader__goes_on_with_what_was_not_drawn_whatever_the_batches_and_processes(size, data):
    was, now = (data.draw(st.tuples(st.integers(1, 5), st.integers(1, 4))) for _ in range(2))
    first = loaders(size, *was)
    iterators = [iter(loader) for loader in first]
    number = data.draw(st.integers(0, len(first[0])))
    seen = [draw for iterator in iterators for batch in itertools.islice(iterator, number) for draw in batch]
    state = first[0].state_dict() if number else {"epoch": 2, "batches": 0}
    found = resumed(state, size, *now)
    assert len({len(batches) for batches in found}) == 1
    follow = [draw for batches in found for batch in batches for draw in batch]
    assert not {draw.item for draw in seen} & {draw.item for draw in follow}
    left, step = size - len({draw.item for draw in seen}), now[0] * now[1]
    if left >= step and size >= step:
        assert len(follow) == left // step * step
        assert len({draw.item for draw in follow}) == len(follow)
    elif was != now:
        assert left - now[1] < len({draw.item for draw in follow}) <= left
        assert bool(follow) == bool(left)
    (whole,) = loaders(size, 1, 1)
    places = {draw.item: draw.seed for (draw,) in whole}
    firsts = {draw.item: draw.seed for draw in reversed(follow)}
    assert all(places[item] == seed for item, seed in firsts.items() if len(follow) == len(firsts))


def test_resumable_loader__a_state_of_older_versions_counts_batches_of_the_same_size():
    (whole,) = loaders(10, 3, 1)
    assert resumed({"epoch": 2, "batches": 1}, 10, 3, 1) == [list(whole)[1:]]


@pytest.mark.parametrize("change", [{"seed": 5}, {"size": 8}])
def test_resumable_loader__an_epoch_of_other_data_begins_anew(change):
    (first,) = loaders(10, 2, 1)
    next(iterator := iter(first))
    next(iterator)
    arguments = {"size": 10, "batch_size": 2, "world_size": 1, **change}
    (loader,) = loaders(**arguments)
    loader.load_state_dict(first.state_dict())
    with pytest.warns(
        UserWarning, match="middle of epoch 2 of other training data: 10 images with seed 1, now .* starts again"
    ):
        assert len(list(loader)) == len(loader)


def test_resumable_loader__warns_once_of_other_batches_with_numbers():
    first = stopped_after_4_of_10()
    (loader,) = loaders(10, 5, 1)
    loader.load_state_dict(first.state_dict())
    told = (
        r"5 images x 1 processes .* had 1 x 1\. Of 10 images in the epoch, 4 were seen .* 5 follow in 1 .* "
        "1 are dropped"
    )
    with pytest.warns(UserWarning, match=told):
        list(loader)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(loader)) == 2
        (same,) = loaders(10, 1, 1)
        same.load_state_dict(first.state_dict())
        assert len(list(same)) == 6


@pytest.mark.parametrize(("batch_size", "world_size", "ready"), [(1, 1, 4), (2, 1, 2), (5, 1, 1), (1, 2, 2), (3, 3, 0)])
def test_resumable_loader__the_trainer_counts_the_batches_that_are_left(batch_size, world_size, ready):
    """Otherwise it ends the epoch early, or late and without a validation."""
    first = stopped_after_4_of_10()
    counts = SimpleNamespace(ready=4, started=4, processed=4, completed=3)  # as when saved after a batch
    loop = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=SimpleNamespace(current=counts)))
    for loader in loaders(10, batch_size, world_size):
        vars(counts).update(ready=4, started=4, processed=4, completed=3)
        loader.trainer = SimpleNamespace(fit_loop=loop, num_training_batches=len(loader))
        loader.load_state_dict(first.state_dict())
        loader.sampler.set_epoch(0)
        assert counts.ready == 4
        for _ in range(2):
            loader.sampler.set_epoch(2)
        assert vars(counts) == {"ready": ready, "started": ready, "processed": ready, "completed": ready - 1}
        assert len(list(loader)) == len(loader) - ready
