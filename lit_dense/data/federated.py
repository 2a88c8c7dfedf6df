"""The data of LVIS's federated annotations: for each image, absent classes and classes annotated only in part."""

from collections.abc import Iterable, Mapping, Sequence
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

    def renumbered(self, new: Mapping[int, int], shown: Sequence[Ints]) -> "Federated":
        """Replace the ids of categories, of which several may become one.

        A united category is absent if all of its old ones are. It is not exhaustive if an old one is, or if the image
        shows one and is not annotated for another.

        Args:
            new: The new id of each category, by its id.
            shown: The ids of categories with a box in each image [I].
        """
        old: dict[int, set[int]] = {}
        for number, united in new.items():
            old.setdefault(united, set()).add(number)
        absent, partial = [], []
        for index, present in enumerate(map(set[int], (row.tolist() for row in shown))):
            missing, partly = (set(lists.row(index).tolist()) for lists in self)
            listed = sorted({new[number] for number in missing | partly | present})
            absent.append([one for one in listed if old[one] <= missing])
            known = (missing | present) - partly
            partial.append([one for one in listed if old[one] & (partly | present) and not old[one] <= known])
        return Federated(*(Ragged.of(np.array(ids, np.int64) for ids in lists) for lists in (absent, partial)))
