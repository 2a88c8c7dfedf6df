"""Copies of functions in which one global name means something else."""

from types import FunctionType
from typing import Any


def rebound(function: FunctionType, name: str, value: Any) -> FunctionType:
    """Return a copy of a function with one of its global names bound to a value; other callers do not change.

    The copy has a code object of its own: ``torch.compile`` keeps its results by code object, with the names of the
    first function that has it.

    Args:
        function: The function. Its other global names are looked up now.
        name: The global name.
        value: What the name means in the copy.
    """
    names = {**function.__globals__, name: value}
    copy = FunctionType(
        function.__code__.replace(), names, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
