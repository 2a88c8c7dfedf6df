"""The annotation that lets any LightningCLI take a part by name.

jsonargparse asks the class in an annotation three things: which subclasses it has, to resolve short names and for
``--help``; whether a value is an instance; whether a class is a subclass. An annotation whose metaclass answers these
from a registry is all that names need: nothing of jsonargparse is imported or replaced.
"""

import sys
from abc import ABCMeta
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from .errors import UsageError

if TYPE_CHECKING:
    from .registry import Registry


class _Listed:
    """Stands for an entry point that is not imported: jsonargparse only asks for its import path."""

    def __init__(self, module: str, name: str) -> None:
        self.__module__, self.__qualname__ = module, name


class _NamedMeta(ABCMeta):
    """Metaclass of the annotations, which are virtual base classes: nothing inherits from them.

    The instance check gets what the user wrote, which is the occasion to explain a mistake better than jsonargparse
    does; should a later version not ask, its own message shows instead.
    """

    registry: "Registry[Any]"
    given: Iterable[str] = ()  # argument names in the value that the instance check saw last

    def __subclasses__(cls) -> Iterator[Any]:  # type: ignore[override]
        registry = cls.registry
        with registry.listing():
            yield from (_Listed(registry.group, name) for name in registry.points)
        yield from registry.unnamed().values()

    def __instancecheck__(cls, value: Any) -> bool:
        if isinstance(value, type):
            return False
        cls.given = ()
        if isinstance(value, cls.registry.base) or cls._is_name(value):
            return True
        cls._explain(value)
        return False

    def _is_name(cls, value: Any) -> bool:
        """Whether this is a name, which then stays the word that the user wrote.

        jsonargparse would turn it into a class path with arguments, and hand on to it the arguments of the class that
        it replaces where both have one of the same name: ``--model.loss=bce`` would get the alpha of focal.
        """
        registry = cls.registry
        if not isinstance(value, str) or value not in {*registry.points, *registry.unnamed()} or not _reading():
            return False
        try:
            registry.find(value)
        except ImportError as error:
            raise UsageError(str(error)) from error  # jsonargparse shows the message of a ValueError
        return True

    def __subclasscheck__(cls, sub: type) -> bool:
        given, cls.given = cls.given, ()
        if sub is cls or not issubclass(sub, cls.registry.base):
            return sub is cls
        if problem := cls.registry.unknown_args(sub, given):
            raise UsageError(problem)
        return True

    def _explain(cls, value: Any) -> None:
        """Raise if the value has an unknown name; note its arguments, to check them when the class is known."""
        registry = cls.registry
        if getattr(value, "_fields", None) == ("key", "val"):  # --model.loss.KEY=VAL
            key = value.key.split(".")[0]
            value = {key: value.val} if key in ("class_path", "init_args") else {"init_args": {key: value.val}}
        elif hasattr(value, "as_dict"):  # jsonargparse.Namespace
            value = value.as_dict()
        if isinstance(value, dict):
            if len(value) == 1 and (name := next(iter(value))) in registry.points:
                raise UsageError(
                    f"For a {registry.kind} with arguments write {{class_path: {name}, init_args: {{...}}}}."
                )
            cls.given = tuple(value["init_args"]) if isinstance(value.get("init_args"), dict) else ()
            value = value.get("class_path")
        if isinstance(value, str) and value.isidentifier() and value not in {*registry.points, *registry.unnamed()}:
            raise UsageError(registry.unknown(value))


def _reading() -> bool:
    """Whether jsonargparse asks while it reads a value rather than while it writes one, which it has to do itself.

    It does not tell, but the function that asks has an argument ``serialize``. Where a later version has none, names
    are treated as jsonargparse treats them.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if "serialize" in frame.f_locals and str(frame.f_globals.get("__name__")).startswith("jsonargparse"):
            return not frame.f_locals["serialize"]
        frame = frame.f_back
    return False


def named_type(registry: "Registry[Any]", label: str) -> Any:
    """Annotation of "a part of this registry, or its name".

    Args:
        registry: Where names come from.
        label: Name of the annotation, as help shows it.
    """

    def __init__(self: Any, class_path: str, init_args: dict[str, Any] | None = None) -> None:  # noqa: N807 (for help)
        raise TypeError(f"{label} is only an annotation")

    doc = f"""A {registry.kind}; for the arguments of one, give its name to this option.

    Args:
        class_path: A name ({", ".join(registry.points)}), the name of an imported class, or an import path.
        init_args: Arguments of that class.
    """
    cls = _NamedMeta(label, (), {"__init__": __init__, "__doc__": doc, "__module__": registry.group})
    cls.__qualname__, cls.registry = label, registry
    cls.__abstractmethods__ = frozenset({"__init__"})  # abstract: jsonargparse must not take it for a choice
    return cls
