"""How often each class occurs in the training set, and how parts come to know it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from .errors import UsageError
from .part import Part


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


class ClassTable(Part):
    """One number for each class, given as an argument or taken from the counts of the training set.

    A loss that needs class frequencies keeps one as a submodule. The numbers are a buffer: a checkpoint holds them, so
    evaluation of it needs no training set. Nothing is summed over processes: all have the same training set.

    Args:
        owner: Name of the part whose table this is, for messages.
        argument: Its argument that gives the numbers.
        kind: Which numbers are taken from the training set's counts.
        given: The numbers that the user gave [C], None to take them from the training set.

    Raises:
        UsageError: If a given number is negative or no number.
    """

    values: Tensor

    def __init__(
        self,
        owner: str,
        argument: str,
        kind: Literal["frequencies", "images", "instances"],
        given: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.owner, self.argument, self.kind = owner, argument, kind
        self.given = None if given is None else [float(number) for number in given]
        for label, number in enumerate(self.given or ()):
            if not number >= 0:
                raise UsageError(f"{owner}: {argument} must be numbers of at least 0, not {number} (class {label}).")
        self.register_buffer("values", torch.empty(0))

    def prepare(self, num_classes: int) -> None:
        """Make room for as many classes as the head has.

        Raises:
            UsageError: If the argument has another number of classes.
        """
        if self.given is not None and len(self.given) != num_classes:
            raise UsageError(
                f"{self.owner}: {self.argument} has {len(self.given)} numbers, but the head has {num_classes} classes."
            )
        unknown = torch.full((num_classes,), float("nan"))
        self.values = (unknown if self.given is None else torch.tensor(self.given)).to(self.values.device)

    def receive_class_counts(self, counts: ClassCounts) -> None:
        """Take the numbers of the training set, unless the user gave others; columns beyond its classes have 0."""
        if self.given is None:
            numbers = getattr(counts, self.kind)
            self.values.zero_()
            self.values[: len(numbers)] = numbers.to(self.values)

    def check_ready(self) -> None:
        """Raise an error if the numbers are not known.

        Raises:
            UsageError: If they are not; it says how to give them.
        """
        if self.values.isnan().any():
            raise UsageError(
                f"{self.owner!r} needs to know how often each class occurs. Train with a data module that has "
                f"class_counts (CocoDataModule does), give class_counts to SwapLoss, lit_dense.patch or Criterion, or "
                f"give the argument {self.argument}, a number for each class."
            )
