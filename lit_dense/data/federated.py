"""The data of LVIS's federated annotations: for each image, absent classes and classes annotated only in part."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..core.array_types import Ints


class Ragged(NamedTuple):
    """Lists of integers of different lengths, in one array.

    Args:
        offsets: List i is values[offsets[i] : offsets[i + 1]], int64 [I + 1].
        values: The values of all lists, int64 [N].
    """

    offsets: Ints
    values: Ints

    @classmethod
    def of(cls, rows: Iterable[Ints]) -> "Ragged":
        """Concatenate lists."""
        kept = list(rows)
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in kept], dtype=np.int64)])
        return cls(offsets, np.concatenate([np.zeros(0, np.int64), *kept]))

    def row(self, index: int) -> Ints:
        """Return one list."""
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def select(self, indices: Sequence[int]) -> "Ragged":
        """Select lists, in the order of the indices."""
        return Ragged.of(self.row(index) for index in indices)


class Federated(NamedTuple):
    """LVIS's lists of category ids for each image, https://arxiv.org/abs/1908.03195.

    Args:
        absent: Categories that the image is known not to show.
        not_exhaustive: Categories that are not exhaustively annotated in the image.
    """

    absent: Ragged
    not_exhaustive: Ragged

    def select(self, indices: Sequence[int]) -> "Federated":
        """Select the lists of some images."""
        return Federated(*(lists.select(indices) for lists in self))

    def renumbered(self, renumber: Callable[[Ints], Ints]) -> "Federated":
        """Replace the ids of categories.

        Args:
            renumber: Returns the new ids of categories.
        """
        return Federated(*(Ragged(lists.offsets, renumber(lists.values)) for lists in self))
