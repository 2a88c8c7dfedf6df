"""How often each class occurs in the training set."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .errors import UsageError


@dataclass(frozen=True)
class ClassCounts:
    """How often each class occurs in the training set.

    Args:
        instances: Boxes of each class [C].
        images: Images that show each class [C].
        num_images: Images of the training set, the empty ones included.
        num_annotated: Images with at least one box; None if all are.
    """

    instances: Tensor
    images: Tensor
    num_images: int
    num_annotated: int | None = None

    @property
    def frequencies(self) -> Tensor:
        """Share of the images with boxes that show each class [C]."""
        annotated = self.num_images if self.num_annotated is None else self.num_annotated
        return self.images.double() / max(1, annotated)

    def in_columns(self, columns: Sequence[int], num_columns: int) -> "ClassCounts":
        """The same counts in the order of a head's columns; a column that no class of the data has gets 0.

        Args:
            columns: The column of each class, -1 for one that has none [C].
            num_columns: Number of columns.
        """
        places = torch.tensor(columns, dtype=torch.int64)
        kept = places >= 0

        def moved(numbers: Tensor) -> Tensor:
            return numbers.new_zeros(num_columns).index_add(0, places[kept], numbers[kept])

        return replace(self, instances=moved(self.instances), images=moved(self.images))


def as_class_counts(counts: ClassCounts | Sequence[float] | None) -> ClassCounts | None:
    """Class counts from what a user has: :class:`ClassCounts`, or the number of boxes of each class.

    Of numbers of boxes alone, each box counts as an image of its own.

    Args:
        counts: Either, or None.

    Raises:
        UsageError: If a number is negative or NaN.
    """
    if counts is None or isinstance(counts, ClassCounts):
        return counts
    wrong = f"class_counts must be the number of boxes of each class, at least 0, not {counts!r}."
    try:
        numbers = torch.as_tensor(counts)
    except (TypeError, ValueError, RuntimeError) as error:  # of words, mappings and uneven lists
        raise UsageError(wrong) from error
    if numbers.dim() != 1 or not bool((numbers >= 0).all()):
        raise UsageError(wrong)
    return ClassCounts(numbers, numbers, num_images=int(numbers.sum()))
