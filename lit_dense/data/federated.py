"""What LVIS says of an image besides its boxes: which classes it surely lacks, and which are annotated in part."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..core.array_types import Ints


class Ragged(NamedTuple):
    """Lists of integers.

    Args:
        offsets: The values of list i are those from offsets[i] to offsets[i + 1], int64 [I + 1].
        values: int64 [N].
    """

    offsets: Ints
    values: Ints

    @classmethod
    def of(cls, rows: Iterable[Ints]) -> "Ragged":
        """The lists in one array."""
        kept = list(rows)
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in kept], dtype=np.int64)])
        return cls(offsets, np.concatenate([np.zeros(0, np.int64), *kept]))

    def row(self, index: int) -> Ints:
        """One list."""
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def select(self, indices: Sequence[int]) -> "Ragged":
        """Some of the lists, in the order of the indices."""
        return Ragged.of(self.row(index) for index in indices)


class Federated(NamedTuple):
    """Category ids for each image, https://arxiv.org/abs/1908.03195.

    Args:
        absent: Categories that the image is known not to have.
        not_exhaustive: Categories of which not all objects are annotated.
    """

    absent: Ragged
    not_exhaustive: Ragged

    def select(self, indices: Sequence[int]) -> "Federated":
        """Those of some images."""
        return Federated(*(lists.select(indices) for lists in self))
