"""A table with one number for each class, given by the user or taken from the training set."""

import sys
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from .class_counts import ClassCounts
from .component import Component
from .errors import UsageError, check_range


class PerClassTable(Component):
    """One number for each class, given as an argument or taken from the class counts of the training set.

    A loss that needs class frequencies has such a table as a submodule. The numbers are a buffer, so a checkpoint
    contains them and its evaluation does not need the training set. Nothing is summed over processes, because all
    processes have the same training set.

    Args:
        owner: Name of the component that has the table, for messages.
        argument: Name of the component's argument for the numbers, for messages.
        kind: The numbers to take from the class counts: ``frequencies``, ``images`` or ``instances``.
        given: The numbers that the user gave [C]; None to take them from the training set.
        high: Largest accepted number; by default every finite number is accepted.

    Raises:
        UsageError: If a given number is negative, infinite, NaN, or no number, or if no list is given.
    """

    values: Tensor

    def __init__(
        self,
        owner: str,
        argument: str,
        kind: Literal["frequencies", "images", "instances"],
        given: Sequence[float] | None = None,
        high: float = sys.float_info.max,
    ) -> None:
        super().__init__()
        self.owner, self.argument, self.kind = owner, argument, kind
        self.given = None if given is None else numbers_of_classes(owner, argument, given)
        most = "" if high == sys.float_info.max else f" and at most {high:g}"
        for label, number in enumerate(self.given or ()):
            if not 0 <= number <= high:
                raise UsageError(
                    f"{owner}: {argument} must be numbers of at least 0{most}, not {number} (class {label})."
                )
        self.register_buffer("values", torch.empty(0))

    def prepare(self, num_classes: int) -> None:
        """Create the buffer for the classes of the head.

        Args:
            num_classes: C, number of classes.

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
        """Take the numbers from the training set unless the user gave them; columns without a class get 0."""
        if self.given is None:
            numbers = getattr(counts, self.kind)
            self.values.zero_()
            self.values[: len(numbers)] = numbers.to(self.values)

    def check_ready(self) -> None:
        """Check that the numbers are known.

        Raises:
            UsageError: If they are not; the message says how to give them.
        """
        if self.values.isnan().any():
            raise UsageError(
                f"{self.owner!r} needs to know how often each class occurs. Train with a data module that has "
                f"class_counts (CocoDataModule does), give class_counts to SwapLoss, lit_dense.patch or Criterion, or "
                f"give the argument {self.argument}, a number for each class."
            )


def numbers_of_classes(owner: str, argument: str, given: Sequence[float]) -> list[float]:
    """Return an argument that is a number for each class as plain numbers [C].

    Args:
        owner: Name of the component that has the argument, for messages.
        argument: Name of the argument.
        given: The numbers [C].

    Raises:
        UsageError: If no list is given, or if an entry is not a number.
    """
    listed: list[float] | None
    try:
        listed = None if isinstance(given, (str, dict)) else [float(number) for number in given]
    except (TypeError, ValueError):  # one number, text, or a nested list
        listed = None
    if listed is None:
        raise UsageError(f"{owner}: {argument} must be a list of numbers, one for each class, not {given!r}.")
    return listed


def number_or_table(owner: str, argument: str, given: float | Sequence[float]) -> float | PerClassTable:
    """Check an argument that is one number, or one for each class.

    Args:
        owner: Name of the component that has the argument, for messages.
        argument: Name of the argument.
        given: A number of at least 0, or one for each class [C].

    Returns:
        The number, or a table that the component holds as a submodule.

    Raises:
        UsageError: If a number is negative, or no number.
    """
    if isinstance(given, Sequence) and not isinstance(given, str):
        return PerClassTable(owner, argument, "instances", given)
    return check_range(owner, argument, given, 0)


def numbers(value: float | PerClassTable) -> float | Tensor:
    """Return the number, or the numbers of all classes [C], of the result of :func:`number_or_table`."""
    return value.values if isinstance(value, PerClassTable) else value
