"""Errors whose message is for the person who reads it."""

import difflib
import re
from collections.abc import Collection, Iterable
from importlib.metadata import requires
from importlib.util import find_spec
from typing import TypeVar

_FROM_WORKER = re.compile(r"Caught \w+ in .*\.\nOriginal Traceback ")
ChoiceT = TypeVar("ChoiceT", bound=str)

IMPORT_NAMES = {"pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn"}
"""What packages are imported as, where that is not their name."""


class UsageError(ValueError):
    """A mistake in configuration or data; the message says what was wrong, where, and what is accepted.

    Args:
        message: What to say. Of the text that torch makes of an error in a worker of a data loader, which holds the
            worker's stack trace, the error's own message is taken.
    """

    def __init__(self, message: str) -> None:
        if _FROM_WORKER.match(message):
            # the trace ends with the error's name, after its module unless that is the main one, and its message
            name = rf"\n(?:{re.escape(type(self).__module__)}\.)?{re.escape(type(self).__qualname__)}: "
            message = re.split(name, message)[-1].rstrip("\n")
        super().__init__(message)


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
    try:
        inside = low <= value <= high
    except TypeError as error:  # of words, lists and None
        raise UsageError(f"{owner}: {name} must be a number, not {value!r}.") from error
    if not inside:
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


def missing_package(error: ImportError) -> str | None:
    """One line on a package that lit-dense uses and that is not installed.

    Args:
        error: What the import raised.

    Returns:
        Which package is missing and what installs it; None if the error is about anything else.
    """
    missing = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or (missing != error.name and missing and find_spec(missing)):
        return None  # the package is there, in another version
    for requirement in requires("lit-dense") or []:
        package = re.split(r"[^\w.-]", requirement)[0]
        # Lightning's own error has no name: the package stands in its text
        if missing == IMPORT_NAMES.get(package, package) or (not missing and f"'{package}" in str(error)):
            extra = re.search(r"extra == .(\w+)", requirement)
            install = f"lit-dense[{extra[1]}]" if extra else "lit-dense"
            return f'{package} is not installed, and this needs it: pip install "{install}" brings it.'
    return None
