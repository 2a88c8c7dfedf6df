"""Class counts: the number of boxes and images of each class in the training set."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .errors import UsageError


@dataclass(frozen=True)
class ClassCounts:
    """Numbers of boxes and images of each class in the training set.

    Args:
        instances: Number of boxes of each class [C].
        images: Number of images that contain each class [C].
        num_images: Number of training images, including images without boxes.
        num_annotated: Number of images with at least one box; None if every image has one.
        is_complete: Whether there must be a number for each class of the head, as in a list that a user gives.
    """

    instances: Tensor
    images: Tensor
    num_images: int
    num_annotated: int | None = None
    is_complete: bool = False

    @property
    def frequencies(self) -> Tensor:
        """Fraction of the annotated images that contain each class [C]."""
        annotated = self.num_images if self.num_annotated is None else self.num_annotated
        return self.images.double() / max(1, annotated)

    def in_columns(self, columns: Sequence[int], num_columns: int) -> "ClassCounts":
        """Reorder the counts by the columns of a head; a column without a class of the data gets 0.

        Args:
            columns: Column of each class, -1 for a class without a column [C].
            num_columns: Number of columns.
        """
        columns_of_classes = torch.tensor(columns, dtype=torch.int64)
        kept = columns_of_classes >= 0

        def reordered(numbers: Tensor) -> Tensor:
            return numbers.new_zeros(num_columns).index_add(0, columns_of_classes[kept], numbers[kept])

        return replace(self, instances=reordered(self.instances), images=reordered(self.images))


def as_class_counts(counts: ClassCounts | Sequence[float] | None) -> ClassCounts | None:
    """Convert the class counts that a user gave into :class:`ClassCounts`.

    Numbers of boxes say nothing about images: each box then counts as one image.

    Args:
        counts: :class:`ClassCounts`, the number of boxes of each class [C], or None, which is returned as it is.

    Raises:
        UsageError: If a number is negative, between 0 and 1, infinite or NaN.
    """
    if counts is None or isinstance(counts, ClassCounts):
        return counts
    wrong = f"class_counts must be the number of boxes of each class, at least 0, not {counts!r}."
    try:
        numbers = torch.as_tensor(counts)
    except (TypeError, ValueError, RuntimeError) as error:  # counts is a string, a mapping or an uneven list
        raise UsageError(wrong) from error
    if numbers.dim() != 1 or not bool(((numbers >= 0) & numbers.isfinite()).all()):
        raise UsageError(wrong)
    if bool(((numbers > 0) & (numbers < 1)).any()):
        raise UsageError(f"class_counts must be the number of boxes of each class, not shares of them: {counts!r}.")
    return ClassCounts(numbers, numbers, num_images=int(numbers.sum()), is_complete=True)
