"""The order of training: which image comes when, with which random numbers, also after an interruption."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset, DistributedSampler

from ..core.array_types import Ints
from ..core.errors import UsageError


class Draw(NamedTuple):
    """An item of a data set with the seed of its augmentation.

    Args:
        item: Which image.
        seed: What the random numbers of its transforms start from.
    """

    item: int
    seed: int


class EpochSampler(DistributedSampler[Draw]):
    """Orders a data set by seed and epoch, and draws a seed for each sample.

    Order and seeds are those of the whole epoch, whatever the number of processes: process r of W takes the places
    r, r + W, r + 2W and so on. So batch k of all processes together holds the images, augmented alike, of batch k of
    one process with a batch W times as large. Where W does not divide the epoch, the last few places are filled with
    images of the beginning.

    Args:
        dataset: What to draw from.
        num_replicas: Number of processes W.
        rank: This process r.
        seed: Seed of all epochs.
        drop_last: Leave out the last images where W does not divide the epoch, instead of repeating the first.
        order: Gives the indices of an epoch from its random numbers, equally many each time, as
            ``ImageSampler.order`` does. Default: each image once, shuffled.

    Raises:
        UsageError: The order has no indices, or, when an epoch begins, not as many as in epoch 0 or others than those
            of the data set.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        num_replicas: int = 1,
        rank: int = 0,
        seed: int = 0,
        drop_last: bool = False,
        order: Callable[[np.random.Generator], Ints] | None = None,
    ) -> None:
        self._order = order
        self._images = len(dataset)  # type: ignore[arg-type]
        self._draws = self._images if order is None else len(order(np.random.default_rng([seed, 0])))
        if order is not None and not self._draws:
            raise UsageError("The sampler gives no images.")
        # a stand-in of the epoch's length, for the parent computes each process's share from it
        super().__init__(range(self._draws), num_replicas, rank, True, seed, drop_last)  # type: ignore[arg-type]
        self.dataset = dataset
        self.start = 0  # places of the epoch to pass over: those that all processes drew before an interruption
        self.keeps_rest = False  # whether also drop_last gives what is left after start, where it is less than a round
        self.on_epoch: Callable[[], None] | None = None  # called when an epoch is set

    @property
    def draws(self) -> int:
        """Places of an epoch."""
        return self._draws

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is iterated over next.

        Args:
            epoch: Its number.
        """
        super().set_epoch(epoch)
        if self.on_epoch is not None:
            self.on_epoch()

    def __iter__(self) -> Iterator[Draw]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(self._images) if self._order is None else self._checked(self._order(rng))
        seeds = rng.integers(2**63, size=self._draws + self.num_replicas)
        left = max(0, self._draws - self.start)
        even = left // self.num_replicas * self.num_replicas  # as many for each process
        if left > even and not (self.drop_last and (even or not self.keeps_rest)):
            even += self.num_replicas
        order = np.resize(order[self.start :], even) if left else order[:0]
        mine = slice(self.rank, None, self.num_replicas)
        return map(Draw, order[mine].tolist(), seeds[self.start : self.start + even][mine].tolist())

    def _checked(self, order: Ints) -> Ints:
        if len(order) != self._draws:
            raise UsageError(
                f"The sampler gives {len(order)} images in epoch {self.epoch}, and {self._draws} in epoch 0. All "
                "epochs must be equally long: schedules and progress count on it."
            )
        if order.min() < 0 or order.max() >= self._images:
            raise UsageError(
                f"The sampler gives images {order.min()} to {order.max()}, of those from 0 to {self._images - 1}."
            )
        return order
