"""Random numbers from a seed and a step: the same in every process, resumed run and Python version."""

import torch

_MASK = 2**64 - 1


def generator_of(seed: int, step: int) -> torch.Generator:
    """Return a random generator on the CPU for one step of a run.

    The two numbers are mixed by SplitMix64 (https://doi.org/10.1145/2660193.2660195), so neighbouring steps and
    neighbouring seeds give unrelated random numbers.

    Args:
        seed: Seed of the run, any integer.
        step: Step of the run, any integer.

    Example:
        >>> torch.rand(2, generator=generator_of(0, 7)).equal(torch.rand(2, generator=generator_of(0, 7)))
        True
    """
    return torch.Generator().manual_seed(_mixed(_mixed(seed) + step) >> 1)  # manual_seed accepts 63 bits


def _mixed(number: int) -> int:
    """Return the output of SplitMix64 for a state: each bit of the state changes about half of the 64 output bits."""
    z = (number + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)
