"""The sources of the images of joined data, and the classes that the images of each source are not annotated for."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..core.array_types import Bools, Ints


class Groups(NamedTuple):
    """Groups of images that are annotated for the same categories: I images in G groups.

    Args:
        of_image: The group of each image, int64 [I].
        partners: Whether images of the first group may be combined with images of the second one: these are annotated
            for the categories of the first group, and perhaps more. So the result is annotated for those of the first
            group, bool [G, G].
    """

    of_image: Ints
    partners: Bools

    def partners_of(self, group: int) -> Bools:
        """Return whether an image may be combined with an image of a group [I].

        Args:
            group: The group.
        """
        allowed: Bools = self.partners[group][self.of_image]
        return allowed


class Origins(NamedTuple):
    """The source of each image: I images of S sources.

    Args:
        names: The name of each source.
        source_idxs: The source of each image, int64 [I].
        unknown: For each source, the ids of the categories that its images are not annotated for, ascending.
    """

    names: tuple[str, ...]
    source_idxs: Ints
    unknown: tuple[Ints, ...]

    def select(self, indices: Ints) -> "Origins":
        """Select images, in the order of the indices."""
        return self._replace(source_idxs=self.source_idxs[indices])

    def with_source(self, name: str, count: int, unknown: Sequence[int] = ()) -> "Origins":
        """Append images of another source.

        Args:
            name: The name of the source.
            count: Number of images.
            unknown: Ids of the categories that the images are not annotated for.
        """
        idxs = np.concatenate([self.source_idxs, np.full(count, len(self.names))])
        return Origins((*self.names, name), idxs, (*self.unknown, np.array(sorted(unknown), np.int64)))

    @property
    def groups(self) -> "Groups":
        """The images that are annotated for the same categories."""
        numbers: dict[tuple[int, ...], int] = {}
        of_source = [numbers.setdefault(tuple(ids.tolist()), len(numbers)) for ids in self.unknown]
        partners = np.array([[set(other) <= set(own) for other in numbers] for own in numbers])
        return Groups(np.array(of_source, np.int64)[self.source_idxs], partners)

    def annotated(self, category_id: int) -> list[str]:
        """Return the names of the sources that are annotated for a category."""
        return [name for name, ids in zip(self.names, self.unknown, strict=True) if category_id not in ids]
