"""The distribution of an epoch's images over processes, with seeds for augmentation, reproducible after a resume."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset, DistributedSampler

from ..core.array_types import Doubles, Ints
from ..core.errors import UsageError
from .origins import Groups


class Draw(NamedTuple):
    """An item of a data set with the seed of its augmentation.

    Args:
        item: Index of the image.
        seed: Seed of the random numbers of its transforms.
        partners: Indices of the other images that its augmentation combines it with.
        progress: Fraction of the run that precedes it; 0 if the length of the run is unknown.
    """

    item: int
    seed: int
    partners: tuple[int, ...] = ()
    progress: float = 0.0


class EpochSampler(DistributedSampler[Draw]):
    """A sampler that orders a data set by seed and epoch, and draws a seed for each sample.

    Order and seeds belong to the whole epoch and do not depend on the number of processes: process r of W takes the
    positions r, r + W, r + 2W and so on. So batch k of all processes together contains the same images, with the same
    augmentation, as batch k of one process with W times the batch size. If W does not divide the length of the epoch,
    images from its beginning fill the last positions.

    Args:
        dataset: The data set.
        num_replicas: Number of processes W.
        rank: This process r.
        seed: Seed of all epochs.
        drop_last: Drop the last images if W does not divide the length of the epoch, instead of repeating the first.
        order: A function of a random generator that returns the indices of an epoch, always equally many, such as
            ``ImageSampler.order``. Default: each image once, shuffled.
        partners: Number of partner images of each sample. They are drawn with replacement from the order of the epoch.
        run_epochs: Length of the run in epochs, for ``Draw.progress``; None if it is unknown.
        groups: Groups of images, which decide what partners an image may have. Default: all images are one group.

    Raises:
        UsageError: The order has no indices. At the start of an epoch: the order has another length than in epoch 0, or
            indices outside the data set.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        num_replicas: int = 1,
        rank: int = 0,
        seed: int = 0,
        drop_last: bool = False,
        order: Callable[[np.random.Generator], Ints] | None = None,
        partners: int = 0,
        run_epochs: float | None = None,
        groups: Groups | None = None,
    ) -> None:
        self._order = order
        self._images = len(dataset)  # type: ignore[arg-type]
        self._draws = self._images if order is None else len(order(np.random.default_rng([seed, 0])))
        if order is not None and not self._draws:
            raise UsageError("The sampler gives no images.")
        # a placeholder of the epoch's length, from which the parent computes each process's share
        super().__init__(range(self._draws), num_replicas, rank, True, seed, drop_last)  # type: ignore[arg-type]
        self.dataset = dataset
        self.partners, self.run_epochs, self.groups = partners, run_epochs, groups
        self.start = 0  # positions to skip: those that all processes drew before an interruption
        self.keeps_rest = False  # whether drop_last keeps the positions after start if there are fewer than processes
        self.on_epoch: Callable[[], None] | None = None  # called when an epoch is set

    @property
    def draws(self) -> int:
        """The number of positions in an epoch."""
        return self._draws

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration.

        Args:
            epoch: Number of the epoch.
        """
        super().set_epoch(epoch)
        if self.on_epoch is not None:
            self.on_epoch()

    def __iter__(self) -> Iterator[Draw]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(self._images) if self._order is None else self._checked(self._order(rng))
        seeds = rng.integers(2**63, size=self._draws + self.num_replicas)
        left = max(0, self._draws - self.start)
        even = left // self.num_replicas * self.num_replicas  # equally many for each process
        if left > even and not (self.drop_last and (even or not self.keeps_rest)):
            even += self.num_replicas
        positions = np.arange(self.start, self.start + even)[self.rank :: self.num_replicas]
        items = np.resize(order[self.start :], even)[self.rank :: self.num_replicas] if left else order[:0]
        partners = map(tuple, self._partners(order)[positions].tolist())
        progress = self._progress(positions).tolist()
        return map(Draw, items.tolist(), seeds[positions].tolist(), partners, progress)

    def _partners(self, order: Ints) -> Ints:
        """Draw the partners of all positions of the epoch, also of those that only fill the last batch."""
        # a generator of its own: seeds are drawn for a number of positions that depends on the number of processes
        rng = np.random.default_rng([self.seed, self.epoch, 1])
        drawn = rng.integers(self._draws, size=(self._draws + self.num_replicas, self.partners))
        partners = order[drawn]
        if self.groups is None:
            return partners
        # the position among the candidates in the order, which a sampler affects
        fillers = np.resize(order[self.start % self._draws :], self.num_replicas)
        own = self.groups.of_image[np.concatenate([order, fillers])]
        for group in np.unique(own):
            candidates, rows = order[self.groups.partners_of(group)[order]], np.flatnonzero(own == group)
            partners[rows] = candidates[drawn[rows] * len(candidates) // self._draws]
        return partners

    def _progress(self, positions: Ints) -> Doubles:
        """Return the fraction of the run that precedes each position of the epoch."""
        if self.run_epochs is None:
            return np.zeros(len(positions))
        return np.minimum((self.epoch + positions / self._draws) / self.run_epochs, 1)

    def _checked(self, given: Any) -> Ints:
        order: Ints = np.asarray(given)
        if order.ndim != 1 or not np.issubdtype(order.dtype, np.integer):
            raise UsageError(f"The sampler gives {order.dtype} of shape {list(order.shape)}: it must give integers.")
        if len(order) != self._draws:
            raise UsageError(
                f"The sampler gives {len(order)} images in epoch {self.epoch}, and {self._draws} in epoch 0. All "
                "epochs must be equally long: schedules and progress bars rely on it."
            )
        if order.min() < 0 or order.max() >= self._images:
            raise UsageError(
                f"The sampler gives images {order.min()} to {order.max()}; the data set has 0 to {self._images - 1}."
            )
        return order
