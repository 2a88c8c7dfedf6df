"""The annotation that lets any LightningCLI take a part by name.

It is a union of two types. The first, a registered type of jsonargparse, takes a whole value given as text: a name or
an import path stays the text that the user wrote. The second is a virtual base class. jsonargparse asks it which
subclasses it has, to resolve names in ``class_path`` and for ``--help``; whether a value is an instance; and whether a
class is a subclass. Its metaclass answers from a registry.

A value that names a class replaces what an earlier file or option gave, arguments included. jsonargparse alone would
hand on the arguments that both classes have: a file with ``{class_path: focal, init_args: {alpha: 0.9}}`` and then
``--model.loss=bce`` would train bce with focal's alpha.
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
"""What was last said of values that were refused: jsonargparse buries it among what it says of other types."""


class _Listed:
    """Stands for an entry point that is not imported: jsonargparse only asks for its import path."""

    def __init__(self, module: str, name: str) -> None:
        self.__module__, self.__qualname__ = module, name


class _NamedMeta(ABCMeta):
    """Metaclass of the virtual base classes: nothing inherits from them.

    The instance check sees each value before jsonargparse reads it. It explains mistakes better than jsonargparse does,
    and writes out the default arguments of a class that a value names, so that no others are taken over.
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
        if isinstance(value, cls.registry.base):
            return True
        cls._look_at(value)
        return False

    def __subclasscheck__(cls, sub: type) -> bool:
        given, cls.given = cls.given, ()
        if sub is cls or not issubclass(sub, cls.registry.base):
            return sub is cls
        if problem := cls.registry.unknown_args(sub, given):
            raise _refusal(problem)
        return True

    def _look_at(cls, value: Any) -> None:
        """Raise if the value names no class; note its arguments, to check them when the class is known."""
        registry = cls.registry
        if isinstance(value, str):
            return
        if (changed := _argument(value)) is not None:  # --model.loss.KEY=VAL
            cls.given = () if changed[0] in ("class_path", "init_args") else (changed[0].split(".")[0],)
            return
        fields = vars(value) if hasattr(value, "as_dict") else value  # jsonargparse.Namespace or dict
        if not isinstance(fields, dict):
            return
        if len(fields) == 1 and (name := next(iter(fields))) in registry.points:
            raise _refusal(f"For a {registry.kind} with arguments write {{class_path: {name}, init_args: {{...}}}}.")
        cls.given = given = _names(fields.get("init_args"))
        if not isinstance(path := fields.get("class_path"), str):
            return
        if path.isidentifier() and not registry.has(path):
            raise _refusal(registry.unknown(path))
        try:
            part = registry.find(path)
        except (ImportError, TypeError, UsageError):
            return  # jsonargparse says so
        _complete(fields, given, _defaults(part))
        cls.given = given  # reading the defaults of a part with parts in it has come through here


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
    """Names of given arguments; jsonargparse disguises those that are methods of its namespaces, such as ``update``."""
    named = args.as_dict() if hasattr(args, "as_dict") else args
    return tuple(named) if isinstance(named, dict) else ()


def _refusal(message: str) -> UsageError:
    refused.append(message)
    return UsageError(message)


def _argument(value: Any) -> tuple[str, Any] | None:
    """Key and value of an option such as ``--model.loss.gamma=1``, which jsonargparse gives as a named tuple."""
    return (value.key, value.val) if getattr(value, "_fields", None) == ("key", "val") else None


_found_defaults: WeakKeyDictionary[type, dict[str, Any]] = WeakKeyDictionary()  # jsonargparse asks many times


def _defaults(part: type) -> dict[str, Any]:
    """The default arguments of a class, of those that jsonargparse takes and that are plain data."""
    if part not in _found_defaults:
        _found_defaults[part] = _find_defaults(part)
    return _found_defaults[part]


def _find_defaults(part: type) -> dict[str, Any]:
    from jsonargparse import ArgumentParser  # it has called us

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(part, fail_untyped=False)
    accepted, taken = accepted_args(part) or {}, parser.get_defaults()
    return {name: p.default for name, p in accepted.items() if name in taken and isinstance(p.default, PLAIN)}


def cli_type(registry: "Registry[Any]", label: str) -> Any:
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
    return Union[_word_type(registry, label), cls]  # noqa: UP007 (| asks the metaclass, which is not a plain type's)


def _word_type(registry: "Registry[Any]", label: str) -> type:
    """The type of a part given as text alone; jsonargparse is told how to read it, where it is installed."""
    word = type(label.replace("Like", "Name"), (str,), {"__module__": registry.group})

    def write(value: Any) -> str:
        if not isinstance(value, str):
            raise UsageError(f"Neither a name nor an import path of a {registry.kind}.")
        return value

    def read(value: Any) -> str:
        changed = _argument(value)
        text = write(changed[1] if changed is not None and changed[0] == "class_path" else value)
        try:
            registry.find(text)
        except (ImportError, TypeError, UsageError) as error:
            raise _refusal(str(error)) from error  # jsonargparse shows the message of a ValueError
        return text

    try:
        from jsonargparse.typing import register_type
    except ModuleNotFoundError:  # without it there is no command line either
        return word
    register_type(word, write, read, deserializer_exceptions=())
    return word
