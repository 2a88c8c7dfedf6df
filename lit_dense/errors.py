"""Errors whose message is for the person who reads it."""

import difflib
from collections.abc import Collection, Iterable
from typing import TypeVar

ChoiceT = TypeVar("ChoiceT", bound=str)


class UsageError(ValueError):
    """A mistake in configuration or data; the message says what was wrong, where, and what is accepted."""


class NonFiniteLossError(RuntimeError):
    """A loss was NaN or infinite."""


def check_range(owner: str, name: str, value: float, low: float, high: float = float("inf")) -> float:
    """The value, if it lies in a range.

    Args:
        owner: Whose argument it is, for the message.
        name: The argument.
        value: What was given.
        low: Smallest value accepted.
        high: Largest value accepted.

    Raises:
        UsageError: If it does not; NaN lies in no range.
    """
    if not low <= value <= high:
        accepted = f"at least {low}" if high == float("inf") else f"in [{low}, {high}]"
        raise UsageError(f"{owner}: {name} must be {accepted}, not {value}.")
    return value


def check_choice(owner: str, name: str, value: ChoiceT, choices: Collection[str]) -> ChoiceT:
    """The value, if it is one of several words.

    Args:
        owner: Whose argument it is, for the message.
        name: The argument.
        value: What was given.
        choices: What is accepted, such as ``get_args`` of a ``Literal``.

    Raises:
        UsageError: If it is none of them.
    """
    if value not in choices:
        hint = nearest(str(value), choices)
        raise UsageError(f"{owner}: {name} must be one of {', '.join(choices)}, not {value!r}.{hint}")
    return value


def nearest(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the known name that is most like this one; empty if none is."""
    lowered = {k.lower(): k for k in known}
    found = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    return f" Did you mean {lowered[found[0]]!r}?" if found else ""
