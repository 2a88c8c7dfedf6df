"""A field that a detector does not have: whatever uses it raises an error that says how to give it."""

from collections.abc import Iterable
from typing import Any, NoReturn

from .errors import UsageError


class MissingField:
    """Stands for a tensor that samples do not have.

    Every use raises: attributes, indices, operators, functions of torch.

    Args:
        what: What is missing.
        cure: How it is given, or why it does not exist.
    """

    def __init__(self, what: str, cure: str) -> None:
        self.__dict__["_message"] = f"These samples have no {what}: {cure}."

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy and pickle ask for optional methods
            raise AttributeError(name)
        self._refuse()

    def __getitem__(self, index: Any) -> NoReturn:
        self._refuse()

    def __len__(self) -> NoReturn:
        self._refuse()

    def __iter__(self) -> NoReturn:
        self._refuse()

    def _operate(self, *_: Any) -> NoReturn:
        self._refuse()

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __neg__ = _operate
    __lt__ = __le__ = __gt__ = __ge__ = _operate

    def _refuse(self) -> NoReturn:
        raise UsageError(self.__dict__["_message"])

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> NoReturn:
        for value in _flat([*args, *(kwargs or {}).values()]):
            if isinstance(value, MissingField):
                value._refuse()
        raise TypeError(f"{function} got no tensor")  # cannot happen: torch comes here because of one


def _flat(values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value
