import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DistributedSampler

from lit_dense.data import Draw, EpochSampler
from lit_dense.data.origins import Groups


def batches(items, size):
    return [items[start : start + size] for start in range(0, len(items) - size + 1, size)]


def draws(size, world_size=1, rank=0, epoch=0, seed=0, drop_last=True):
    sampler = EpochSampler(range(size), world_size, rank, seed, drop_last)
    sampler.set_epoch(epoch)
    items = list(sampler)
    assert len(items) == len(sampler)
    return items


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 4), st.integers(0, 3))
def test_epoch_sampler__processes_together_draw_the_batches_of_one(size, world_size, batch_size, epoch):
    ranks = [batches(draws(size, world_size, rank, epoch), batch_size) for rank in range(world_size)]
    together = [set(itertools.chain(*parts)) for parts in zip(*ranks, strict=True)]
    alone = [set(batch) for batch in batches(draws(size, epoch=epoch), batch_size * world_size)]
    assert together == alone


@given(st.integers(1, 40), st.integers(1, 7))
def test_epoch_sampler__without_dropping_every_image_is_drawn_and_processes_draw_equally_many(size, world_size):
    ranks = [draws(size, world_size, rank, drop_last=False) for rank in range(world_size)]
    assert len({len(items) for items in ranks}) == 1
    assert {draw.item for items in ranks for draw in items} == set(range(size))
    assert all(isinstance(draw, Draw) for items in ranks for draw in items)


def test_epoch_sampler__epochs_and_seeds_differ_and_repeat():
    kinds = {(seed, epoch): tuple(draws(30, seed=seed, epoch=epoch)) for seed in range(3) for epoch in range(3)}
    assert len(set(kinds.values())) == 9  # also seed 0 in epoch 1 and seed 1 in epoch 0
    assert kinds[1, 2] == tuple(draws(30, seed=1, epoch=2))
    assert len({draw.seed for items in kinds.values() for draw in items}) == 9 * 30


def test_epoch_sampler__lightning_keeps_it_for_it_is_a_distributed_sampler():
    assert isinstance(EpochSampler(range(3)), DistributedSampler)


PARTNERS = np.array([[1, 0, 1], [0, 1, 1], [0, 0, 1]], bool)


@given(st.integers(3, 40), st.integers(1, 5), st.integers(0, 3), st.integers(0, 20))
def test_epoch_sampler__partners_are_of_groups_that_an_image_may_be_combined_with(size, world_size, epoch, start):
    of_image = np.arange(size) % 3
    found = []
    for rank in range(world_size):
        sampler = EpochSampler(range(size), world_size, rank, 0, False, partners=3, groups=Groups(of_image, PARTNERS))
        sampler.set_epoch(epoch)
        sampler.start = min(start, size - 1)
        found += list(sampler)
    for draw in found:
        assert PARTNERS[of_image[draw.item], of_image[list(draw.partners)]].all()


def test_epoch_sampler__partners_of_groups_follow_the_order_of_a_sampler():
    drawn = np.array([0, 0, 0, 0, 3, 1, 1, 1, 4, 4])  # images 2 and 5 never
    sampler = EpochSampler(
        range(6),
        order=lambda rng: drawn,
        partners=2,
        groups=Groups(np.array([0, 1, 0, 0, 1, 1]), np.eye(2, dtype=bool)),
    )
    partners = [(draw.item, partner) for draw in sampler for partner in draw.partners]
    assert {p for i, p in partners if i in (0, 3)} <= {0, 3}
    assert {p for i, p in partners if i in (1, 4)} <= {1, 4}


def test_epoch_sampler__groups_without_a_difference_leave_partners_as_they_are():
    plain = EpochSampler(range(9), partners=2)
    grouped = EpochSampler(range(9), partners=2, groups=Groups(np.zeros(9, int), np.ones((1, 1), bool)))
    assert list(plain) == list(grouped)
