"""Type annotations that let a LightningCLI accept a component by name.

Each annotation is a union of two types. The first is a registered type of jsonargparse. It parses a value that is given
as text: a name or an import path stays the text that the user wrote. The second is a virtual base class. jsonargparse
asks it for its subclasses (to resolve names in ``class_path`` and for ``--help``), whether a value is an instance, and
whether a class is a subclass. Its metaclass answers these questions from a registry.

A value that names a class replaces the value of an earlier file or option, including its arguments. By itself
jsonargparse would keep the arguments that both classes have: ``--model.loss=bce`` after a file with
``{class_path: focal, init_args: {alpha: 0.9}}`` would train bce with focal's alpha.
"""

from abc import ABCMeta
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Union
from weakref import WeakKeyDictionary

from .errors import UsageError
from .registry import Registry, accepted_args

PLAIN = (str, int, float, tuple, type(None))

refused: deque[str] = deque(maxlen=8)
"""The last messages about rejected values: jsonargparse hides them among its messages about other types."""


class _Listed:
    """A stand-in for the class of an entry point that is not imported: jsonargparse only reads its import path."""

    def __init__(self, module: str, name: str) -> None:
        self.__module__, self.__qualname__ = module, name


class _NamedMeta(ABCMeta):
    """Metaclass of the virtual base classes, from which no class inherits.

    The instance check sees each value before jsonargparse parses it. It gives better error messages than jsonargparse,
    and it adds the default arguments of the class that a value names, so that no earlier arguments are kept.
    """

    registry: "Registry[Any]"
    given: Iterable[str] = ()  # names of the arguments in the last value that the instance check saw

    def __subclasses__(cls) -> Iterator[Any]:  # type: ignore[override]
        registry = cls.registry
        with registry.listing():
            yield from (_Listed(registry.group, name) for name in registry.points)
        yield from registry.unnamed().values()

    def __instancecheck__(cls, value: Any) -> bool:
        if isinstance(value, type):
            return False
        cls.given = ()
        if isinstance(value, cls.registry.base):
            return True
        cls._inspect_value(value)
        return False

    def __subclasscheck__(cls, sub: type) -> bool:
        given, cls.given = cls.given, ()
        if sub is cls or not issubclass(sub, cls.registry.base):
            return sub is cls
        if problem := cls.registry.unknown_args(sub, given):
            raise _refusal(problem)
        return True

    def _inspect_value(cls, value: Any) -> None:
        """Raise an error if the value names no class; store the names of its arguments for the subclass check."""
        registry = cls.registry
        if isinstance(value, str):
            return
        if (option := _key_and_value(value)) is not None:  # --model.loss.KEY=VAL
            cls.given = () if option[0] in ("class_path", "init_args") else (option[0].split(".")[0],)
            return
        fields = vars(value) if hasattr(value, "as_dict") else value  # jsonargparse.Namespace or dict
        if not isinstance(fields, dict):
            return
        if len(fields) == 1 and (name := next(iter(fields))) in registry.points:
            raise _refusal(f"For a {registry.kind} with arguments write {{class_path: {name}, init_args: {{...}}}}.")
        cls.given = given = _names(fields.get("init_args"))
        outside = [name for name in _names(fields) if name not in ("class_path", "init_args", "dict_kwargs")]
        if not isinstance(path := fields.get("class_path"), str):
            if outside and "class_path" not in fields:
                raise _refusal(registry.outside_args("NAME", outside))
            return
        if outside:
            raise _refusal(registry.outside_args(path, outside))
        if path.isidentifier() and not registry.has(path):
            raise _refusal(registry.unknown(path))
        try:
            component = registry.find(path)
        except (ImportError, TypeError, UsageError):
            return  # jsonargparse reports it
        _complete(fields, given, _defaults(component))
        cls.given = given  # the look-up of defaults may have called this method for nested components


def _complete(fields: dict[str, Any], given: Iterable[str], defaults: dict[str, Any]) -> None:
    """Write the defaults of arguments that were not given into ``init_args``."""
    if not defaults:
        return
    if fields.get("init_args") is None:
        fields["init_args"] = dict(defaults)
        return
    for name in defaults.keys() - set(given):
        fields["init_args"][name] = defaults[name]


def _names(args: Any) -> tuple[str, ...]:
    """Names of the given arguments; ``as_dict`` restores names that are methods of Namespace, such as ``update``."""
    named = args.as_dict() if hasattr(args, "as_dict") else args
    return tuple(named) if isinstance(named, dict) else ()


def _refusal(message: str) -> UsageError:
    refused.append(message)
    return UsageError(message)


def _key_and_value(value: Any) -> tuple[str, Any] | None:
    """Key and value of an option such as ``--model.loss.gamma=1``, which jsonargparse passes as a named tuple."""
    return (value.key, value.val) if getattr(value, "_fields", None) == ("key", "val") else None


_defaults_cache: WeakKeyDictionary[type, dict[str, Any]] = WeakKeyDictionary()  # jsonargparse asks often


def _defaults(cls: type) -> dict[str, Any]:
    """The default arguments of a class that jsonargparse accepts and that are plain data."""
    if cls not in _defaults_cache:
        _defaults_cache[cls] = _find_defaults(cls)
    return _defaults_cache[cls]


def _find_defaults(cls: type) -> dict[str, Any]:
    from jsonargparse import ArgumentParser  # optional, but here it is installed: it has called this function

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, fail_untyped=False)
    accepted, parsed = accepted_args(cls) or {}, parser.get_defaults()
    return {name: p.default for name, p in accepted.items() if name in parsed and isinstance(p.default, PLAIN)}


def cli_type(registry: "Registry[Any]", label: str) -> Any:
    """Return the annotation for a component of a registry, or its name.

    Args:
        registry: The registry that resolves names.
        label: Name of the annotation, which the help text shows.
    """

    def __init__(self: Any, class_path: str, init_args: dict[str, Any] | None = None) -> None:  # noqa: N807 (for help)
        raise TypeError(f"{label} is only an annotation")

    doc = f"""A {registry.kind}; to list the arguments of one, give its name to this option.

    Args:
        class_path: A name ({", ".join(registry.points)}), the name of an imported class, or an import path.
        init_args: Arguments of that class.
    """
    cls = _NamedMeta(label, (), {"__init__": __init__, "__doc__": doc, "__module__": registry.home})
    cls.__qualname__, cls.registry = label, registry
    cls.__abstractmethods__ = frozenset({"__init__"})  # abstract: jsonargparse must not offer it as a choice
    return Union[_name_type(registry, label), cls]  # noqa: UP007 (| asks the metaclass, which is not a plain type's)


def _name_type(registry: "Registry[Any]", label: str) -> type:
    """Return the type of a component given as text; it is registered with jsonargparse if that is installed."""
    name_type = type(label.replace("Like", "Name"), (str,), {"__module__": registry.home})

    def write(value: Any) -> str:
        if not isinstance(value, str):
            raise UsageError(f"Neither a name nor an import path of a {registry.kind}.")
        return value

    def read(value: Any) -> str:
        option = _key_and_value(value)
        text = write(option[1] if option is not None and option[0] == "class_path" else value)
        try:
            registry.find(text)
        except (ImportError, TypeError, UsageError) as error:
            raise _refusal(str(error)) from error  # jsonargparse shows the message of a ValueError
        return text

    try:
        from jsonargparse.typing import register_type
    except ModuleNotFoundError:  # without it there is no command line either
        return name_type
    register_type(name_type, write, read, deserializer_exceptions=())
    return name_type
