"""Generators of a seed and a step."""

import re
from pathlib import Path

import torch

import lit_dense
from lit_dense.core.seeds import _mixed, generator_of


def test_mixed__is_splitmix64():
    state, drawn = 1234567, []
    for _ in range(3):  # the state of SplitMix64 grows by the constant that the mixing adds
        drawn.append(_mixed(state))
        state += 0x9E3779B97F4A7C15
    assert drawn == [6457827717110365317, 3203168211198807973, 9817491932198370423]  # the published test vector


def test_generator_of__a_step_has_the_same_seed_in_every_version():
    found = [generator_of(*numbers).initial_seed() for numbers in ((0, 0), (0, 1), (1, 0), (3, 90_000), (-1, -2))]
    assert found == [
        6017775124710473527,
        1534736266818221247,
        3395948882924712079,
        5128081542343043632,
        8225061522723568047,
    ]


def test_generator_of__every_seed_and_step_has_numbers_of_its_own():
    seeds = {generator_of(seed, step).initial_seed() for seed in range(-50, 50) for step in range(100)}
    assert len(seeds) == 100 * 100
    drawn = torch.stack([torch.rand(100, generator=generator_of(0, step)) for step in range(200)])
    torch.testing.assert_close(drawn.mean(0), torch.full((100,), 0.5), rtol=0, atol=0.1)
    assert torch.corrcoef(drawn).fill_diagonal_(0).abs().max() < 0.5


def test_seeds__do_not_come_from_pythons_hash():
    # the hash of a tuple differs between versions of Python, and that of a word between processes
    files = Path(lit_dense.__file__).parent.rglob("*.py")
    assert [str(path) for path in files if re.search(r"(?<![\w.])hash\(", path.read_text())] == []
