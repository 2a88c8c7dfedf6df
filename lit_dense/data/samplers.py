"""The order of training: which image comes when, with which random numbers, also after an interruption."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import DataLoader, Dataset, DistributedSampler


class Draw(NamedTuple):
    """An item of a data set with the seed of its augmentation.

    Args:
        item: Which image.
        seed: What the random numbers of its transforms start from.
    """

    item: int
    seed: int


class EpochSampler(DistributedSampler[Draw]):
    """Shuffles a data set by seed and epoch, and draws a seed for each sample.

    Order and seeds are those of the whole data set, whatever the number of processes: process r of W takes the places
    r, r + W, r + 2W and so on. So batch k of all processes together holds the images, augmented alike, of batch k of
    one process with a batch W times as large. Where W does not divide the data set, the last few places are filled
    with images of the beginning.

    Args:
        dataset: What to draw from.
        num_replicas: Number of processes W.
        rank: This process r.
        seed: Seed of all epochs.
        drop_last: Leave out the last images where W does not divide the data set, instead of repeating the first.
    """

    def __init__(
        self, dataset: Dataset[Any], num_replicas: int = 1, rank: int = 0, seed: int = 0, drop_last: bool = False
    ) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=True, seed=seed, drop_last=drop_last)
        self.start = 0  # samples of this process to pass over: those that were drawn before an interruption

    def __iter__(self) -> Iterator[Draw]:
        size = len(self.dataset)  # type: ignore[arg-type]
        rng = np.random.default_rng([self.seed, self.epoch])
        order = np.resize(rng.permutation(size), self.total_size)
        seeds = rng.integers(2**63, size=self.total_size)
        mine = slice(self.rank + self.start * self.num_replicas, None, self.num_replicas)
        return map(Draw, order[mine].tolist(), seeds[mine].tolist())


class ResumableLoader(DataLoader[Any]):
    """A data loader with an :class:`EpochSampler` that goes on where a checkpoint was made in the middle of an epoch.

    Lightning keeps ``state_dict`` in its checkpoints and gives it back to the loader of the resumed run. What was
    drawn before is passed over without being loaded.
    """

    _epoch = -1  # the epoch that was begun last
    _batches = 0  # batches of it that were handed out
    _resumes = False  # whether these two are those of an interrupted run

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # A generator, so that nothing is drawn before the first batch is asked for: a resumed trainer makes the
        # iterator first and tells the sampler the epoch afterwards.
        if not isinstance(self.sampler, EpochSampler):  # Trainer(overfit_batches=...) puts its own here
            yield from super().__iter__()
            return
        if not (self._resumes and self._epoch == self.sampler.epoch):
            self._epoch, self._batches = self.sampler.epoch, 0
        self._resumes = False
        self.sampler.start = self._batches * (self.batch_size or 1)
        for batch in super().__iter__():
            self._batches += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch and the number of its batches that were handed out."""
        return {"epoch": self._epoch, "batches": self._batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on from there when that epoch is iterated over next."""
        self._epoch, self._batches, self._resumes = state["epoch"], state["batches"], True
