"""Errors for mistakes of the user, and checks of arguments that raise them."""

import difflib
import re
import sys
from collections.abc import Collection, Iterable
from importlib.metadata import requires
from importlib.util import find_spec
from typing import TypeVar

_FROM_WORKER = re.compile(r"Caught \w+ in .*\.\nOriginal Traceback ")
ChoiceT = TypeVar("ChoiceT", bound=str)

IMPORT_NAMES = {"pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn"}
"""Import names of packages that differ from the name of the package."""


class UsageError(ValueError):
    """An error in configuration or data; the message says what is wrong, where, and what is accepted.

    Args:
        message: The message. If it is the text in which torch wraps an error of a data loader worker, with the stack
            trace of the worker, only the message of the original error is kept.
    """

    def __init__(self, message: str) -> None:
        if _FROM_WORKER.match(message):
            # the trace ends with the error's name, after its module unless that is the main one, and its message
            name = rf"\n(?:{re.escape(type(self).__module__)}\.)?{re.escape(type(self).__qualname__)}: "
            message = re.split(name, message)[-1].rstrip("\n")
        super().__init__(message)


class NonFiniteLossError(RuntimeError):
    """A loss was NaN or infinite."""


def line_of(error: UnicodeDecodeError) -> int:
    """Return the line, from 1, of the first byte that cannot be decoded.

    Args:
        error: The error of decoding a whole file.
    """
    return error.object.count(b"\n", 0, error.start) + 1


def check_range(owner: str, name: str, value: float, low: float, high: float = sys.float_info.max) -> float:
    """Return the value of an argument if it lies in a range.

    Args:
        owner: Name of the class that has the argument, for the message.
        name: Name of the argument.
        value: The value.
        low: Smallest accepted value.
        high: Largest accepted value; by default every finite number is accepted, with infinity infinity too.

    Raises:
        UsageError: If the value is not a number, is NaN or lies outside the range.
    """
    try:
        inside = max(low, -sys.float_info.max) <= value <= high
    except TypeError as error:  # value is a string, a list or None
        raise UsageError(f"{owner}: {name} must be a number, not {value!r}.") from error
    if not inside:
        accepted = f"at least {low}" if high >= sys.float_info.max else f"in [{low}, {high}]"
        if value == float("inf") and high == sys.float_info.max:
            accepted = f"finite and {accepted}"
        if low == float("-inf"):
            accepted = "finite"
        raise UsageError(f"{owner}: {name} must be {accepted}, not {value}.")
    return value


def check_choice(owner: str, name: str, value: ChoiceT, choices: Collection[str]) -> ChoiceT:
    """Return the value of an argument if it is one of several names.

    Args:
        owner: Name of the class that has the argument, for the message.
        name: Name of the argument.
        value: The value.
        choices: Accepted names, such as ``get_args`` of a ``Literal``.

    Raises:
        UsageError: If the value is not among them.
    """
    if value not in choices:
        hint = nearest(str(value), choices)
        raise UsageError(f"{owner}: {name} must be one of {', '.join(choices)}, not {value!r}.{hint}")
    return value


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the most similar known name; empty if no name is similar."""
    lowered = {k.lower(): k for k in known}
    matches = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    return f" Did you mean {lowered[matches[0]]!r}?" if matches else ""


def missing_package(error: ImportError) -> str | None:
    """Explain a failed import of a package that lit-dense uses.

    Args:
        error: The error that the import raised.

    Returns:
        One line with the missing package and the command that installs it; None if the error has another cause.
    """
    missing = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or (missing != error.name and missing and find_spec(missing)):
        return None  # the package is installed, in another version
    for requirement in requires("lit-dense") or []:
        package = re.split(r"[^\w.-]", requirement)[0]
        # Lightning's own error has no name: the package is in its text
        if missing == IMPORT_NAMES.get(package, package) or (not missing and f"'{package}" in str(error)):
            extra = re.search(r"extra == .(\w+)", requirement)
            install = f"lit-dense[{extra[1]}]" if extra else "lit-dense"
            return f'{package} is not installed, and this needs it: pip install "{install}" brings it.'
    return None
