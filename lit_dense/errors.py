"""Errors whose message is for the person who reads it."""


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
