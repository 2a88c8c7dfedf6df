import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DistributedSampler, SequentialSampler

from lit_dense.data import Draw, EpochSampler, ResumableLoader


def batches(items, size):
    return [items[start : start + size] for start in range(0, len(items) - size + 1, size)]


def draws(size, world_size=1, rank=0, epoch=0, seed=0, drop_last=True):
    sampler = EpochSampler(range(size), world_size, rank, seed, drop_last)
    sampler.set_epoch(epoch)
    items = list(sampler)
    assert len(items) == len(sampler)
    return items


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 4), st.integers(0, 3))
def test_processes_together_draw_the_batches_of_one(size, world_size, batch_size, epoch):
    ranks = [batches(draws(size, world_size, rank, epoch), batch_size) for rank in range(world_size)]
    together = [set(itertools.chain(*parts)) for parts in zip(*ranks, strict=True)]
    alone = [set(batch) for batch in batches(draws(size, epoch=epoch), batch_size * world_size)]
    assert together == alone


@given(st.integers(1, 40), st.integers(1, 7))
def test_without_dropping_every_image_is_drawn_and_processes_draw_equally_many(size, world_size):
    ranks = [draws(size, world_size, rank, drop_last=False) for rank in range(world_size)]
    assert len({len(items) for items in ranks}) == 1
    assert {draw.item for items in ranks for draw in items} == set(range(size))
    assert all(isinstance(draw, Draw) for items in ranks for draw in items)


def test_epochs_and_seeds_differ_and_repeat():
    kinds = {(seed, epoch): tuple(draws(30, seed=seed, epoch=epoch)) for seed in range(3) for epoch in range(3)}
    assert len(set(kinds.values())) == 9  # also seed 0 in epoch 1 and seed 1 in epoch 0
    assert kinds[1, 2] == tuple(draws(30, seed=1, epoch=2))
    assert len({draw.seed for items in kinds.values() for draw in items}) == 9 * 30


def test_lightning_keeps_it_for_it_is_a_distributed_sampler():
    assert isinstance(EpochSampler(range(3)), DistributedSampler)


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
def test_a_loader_goes_on_where_another_stopped(make_loader, workers):
    options = {"num_workers": workers, "persistent_workers": workers > 0}
    first = make_loader(**options)
    first.sampler.set_epoch(4)
    whole = list(first)
    again = iter(first)
    seen = [next(again), next(again)]
    state = first.state_dict()
    assert state == {"epoch": 4, "batches": 2}

    second = make_loader(**options)
    second.load_state_dict(state)
    assert second.state_dict() == state
    iterator = iter(second)  # as a trainer does: first the iterator, then the epoch
    second.sampler.set_epoch(4)
    assert seen + list(iterator) == whole
    assert len(second) == 3
    assert list(second) == whole  # once only


def test_another_epoch_starts_at_its_beginning(make_loader):
    loader = make_loader()
    loader.load_state_dict({"epoch": 4, "batches": 2})
    loader.sampler.set_epoch(5)
    assert len(list(loader)) == 3
    loader.sampler.set_epoch(4)
    assert len(list(loader)) == 3


def test_an_abandoned_iterator_leaves_nothing_behind(make_loader):
    loader = make_loader()
    assert next(iter(loader)) == next(iter(loader))


def test_a_finished_epoch_has_nothing_left(make_loader):
    loader = make_loader()
    loader.load_state_dict({"epoch": 0, "batches": 3})
    assert list(loader) == []
    assert len(list(loader)) == 3


def test_a_sampler_of_somebody_else_is_taken_as_it_is(make_loader):
    loader = make_loader(SequentialSampler(range(10)))
    assert list(loader) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
