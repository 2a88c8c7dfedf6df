"""A placeholder for a field of the samples that a detector does not have; every use of it raises an error."""

from collections.abc import Iterable
from typing import Any, NoReturn

from .errors import UsageError


class MissingField:
    """A placeholder for a tensor that the samples do not have.

    Every use raises a ``UsageError``: attributes, indices, operators and functions of torch.

    Args:
        what: Name of the missing field.
        cure: The way to provide it, or the reason why it does not exist.
    """

    def __init__(self, what: str, cure: str) -> None:
        self.__dict__["_message"] = f"These samples have no {what}: {cure}."

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy and pickle look for optional methods
            raise AttributeError(name)
        self._raise_missing()

    def __getitem__(self, index: Any) -> NoReturn:
        self._raise_missing()

    def __len__(self) -> NoReturn:
        self._raise_missing()

    def __iter__(self) -> NoReturn:
        self._raise_missing()

    def _operate(self, *_: Any) -> NoReturn:
        self._raise_missing()

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __neg__ = _operate
    __lt__ = __le__ = __gt__ = __ge__ = _operate

    def _raise_missing(self) -> NoReturn:
        raise UsageError(self.__dict__["_message"])

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> NoReturn:
        for value in _flat([*args, *(kwargs or {}).values()]):
            if isinstance(value, MissingField):
                value._raise_missing()
        raise TypeError(f"{function} got no tensor")  # unreachable: one argument is a MissingField


def _flat(values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value
