"""Registries of component names: one :class:`Registry` for each entry-point group.

A registry is used in three ways:

* in Python: ``LOSSES.build("focal")``;
* as a namespace: ``lit_dense.losses.focal`` is the class of the entry point ``focal`` in the group
  ``lit_dense.losses``, so a name is also an import path;
* on a command line or in a YAML file, through the annotation that :func:`lit_dense.core.cli_types.cli_type` returns.

Names are listed from the metadata of installed packages. A plug-in is imported only when it is chosen.
"""

import inspect
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from .component import NAME_FINDERS, Component, name_or_path
from .errors import UsageError, nearest

ComponentT = TypeVar("ComponentT")
PACKAGE = __name__.partition(".")[0]


class Registry(Generic[ComponentT]):
    """The named classes of one entry-point group.

    Args:
        group: Name of the entry-point group, which is also the import path of the module that exposes its names.
        kind: Word for a member in messages, such as ``loss``.
        base: Base class of all members.
        home: The package of lit_dense's own members. Default: the group.
    """

    def __init__(self, group: str, kind: str, base: type[ComponentT], home: str | None = None) -> None:
        self.group, self.kind, self.base = group, kind, base
        self.home = home or group
        self._listing = False
        NAME_FINDERS.append(self.name_of)

    def name_of(self, cls: type) -> str | None:
        """Return the registered name of a class; None if it has none, or if two packages claim the name."""
        name = self.imported().get(cls) if issubclass(cls, self.base) else None
        return name if name is None or len(self.points[name]) == 1 else None

    def named(self, spec: Any) -> Any:
        """Replace the import paths in a saved spec by registered names, for the classes that have one.

        Files of version 0.1.0 contain import paths.

        Args:
            spec: A dict with ``class_path`` and ``init_args``, a list of such dicts, or None.
        """
        if isinstance(spec, list):
            return [self.named(item) for item in spec]
        if not isinstance(spec, dict) or "class_path" not in spec:
            return spec
        try:
            cls = self.find(spec["class_path"])
        except (UsageError, ImportError, TypeError):  # a class that is not installed keeps its import path
            return spec
        args = {name: self.named(value) for name, value in (spec.get("init_args") or {}).items()}
        return {"class_path": name_or_path(cls), "init_args": args}

    @cached_property
    def points(self) -> dict[str, list[EntryPoint]]:
        """The entry points of each name; more than one is a conflict. Only package metadata is read."""
        claims: dict[str, dict[str, EntryPoint]] = {}
        for point in sorted(entry_points(group=self.group), key=lambda p: (p.name, p.value)):
            if point.name.isidentifier():
                claims.setdefault(point.name, {})[point.value] = point
            else:
                warnings.warn(
                    f"The {self.kind} {point.name!r} of {_owner(point)} is ignored: a name must be an identifier.",
                    stacklevel=2,
                )
        return {name: self._prefer_own(list(points.values())) for name, points in claims.items()}

    def _prefer_own(self, points: list[EntryPoint]) -> list[EntryPoint]:
        """Keep only the entry point of lit_dense itself if a plug-in claims the same name."""
        own = [p for p in points if p.value.startswith(f"{PACKAGE}.")]
        if own and len(points) > len(own):
            others = ", ".join(_owner(p) for p in points if p not in own)
            warnings.warn(
                f"The {self.kind} {own[0].name!r} is lit_dense's own; that of {others} is reached by its import path.",
                stacklevel=2,
            )
        return own or points

    def imported(self) -> dict[type, str]:
        """Return the names of the entry points whose modules are imported, by class."""
        names: dict[type, str] = {}
        for name, points in self.points.items():
            for point in points:
                # not getattr: a package of parts looks up unknown names, and its error message calls this method
                if cls := vars(sys.modules.get(point.module, object)).get(point.attr):
                    names[cls] = name
        return names

    def unnamed(self) -> dict[str, type]:
        """Return imported subclasses without a registered name, such as those of a user's script, by class name."""
        classes: dict[str, type] = {}
        named, todo = self.imported(), [self.base]
        while todo:
            for sub in todo.pop().__subclasses__():
                todo.append(sub)
                if sub not in named and not sub.__name__.startswith("_") and not inspect.isabstract(sub):
                    classes.setdefault(sub.__name__, sub)
        return classes

    def load(self, name: str) -> type[ComponentT]:
        """Import the class of a registered name.

        Raises:
            UsageError: If the name is unknown, or two packages claim it.
            ImportError: If the package that registers it cannot be imported.
            TypeError: If the class is not a subclass of the registry's base class.
        """
        if name not in self.points:
            raise UsageError(self.unknown(name))
        point, *others = self.points[name]
        if others:
            owners = ", ".join(f"{_owner(p)} ({p.value})" for p in (point, *others))
            raise UsageError(
                f"Two packages claim the {self.kind} {name!r}: {owners}. Uninstall one, or give the import path."
            )
        try:
            cls = point.load()
        except Exception as error:
            raise ImportError(
                f"The {self.kind} {name!r} ({point.value} of {_owner(point)}) failed to import: {error!r}"
            ) from error
        return self._checked(cls, point.value)

    def _checked(self, cls: Any, path: str) -> type[ComponentT]:
        if not (isinstance(cls, type) and issubclass(cls, self.base)):
            raise TypeError(
                f"{path!r} is no {self.kind}: it must be a subclass of {self.base.__module__}.{self.base.__name__}."
            )
        return cls

    @contextmanager
    def listing(self) -> Iterator[None]:
        """Do not import packages on attribute look-up in this context, in which names are only listed."""
        self._listing = True
        try:
            yield
        finally:
            self._listing = False

    def attribute(self, name: str) -> Any:
        """Look up a registered name or a class of lit_dense: the ``__getattr__`` of the group's module."""
        if self._listing or name.startswith("_"):
            raise AttributeError(name)
        if name in self.points:
            return self.load(name)
        if (named := self._own_name(name)) is not None:
            return self.load(named)
        raise AttributeError(f"module {self.group!r} has no attribute {name!r}. {self.unknown(name)}")

    def build(self, value: ComponentT | str | dict[str, Any]) -> ComponentT:
        """Build a component.

        Args:
            value: A component, which is returned as it is; a registered name; or a dict
                ``{"class_path": name or import path, "init_args": {...}}``.

        Raises:
            UsageError: If the name, the import path or an argument is unknown.
            TypeError: If the value has another type.
        """
        if isinstance(value, self.base):
            return value
        described: Any = {"class_path": value} if isinstance(value, str) else value
        if not isinstance(described, dict) or not isinstance(described.get("class_path"), str):
            raise TypeError(
                f"A {self.kind} is given as a {self.base.__name__}, a name or a dict with class_path and init_args, "
                f"not as {value!r}."
            )
        if outside := [name for name in described if name not in ("class_path", "init_args")]:
            raise UsageError(self.outside_args(described["class_path"], outside))
        cls, args = self.find(described["class_path"]), described.get("init_args") or {}
        if problem := self.unknown_args(cls, args) or self.missing_args(cls, args):
            raise UsageError(problem)
        return cls(**args)

    def build_list(
        self, values: Sequence[ComponentT | str | dict[str, Any]] | ComponentT | str | dict[str, Any]
    ) -> list[ComponentT]:
        """Build several components, each given as for :meth:`build`; a single one may be given without a list."""
        single = isinstance(values, (self.base, str, dict))
        listed: Sequence[Any] = [values] if single else values  # type: ignore[assignment]
        return [self.build(value) for value in listed]

    def find(self, path: str) -> type[ComponentT]:
        """Return the class of a registered name, of the name of an imported subclass, or of an import path.

        Raises:
            UsageError: If there is no such class.
        """
        module, _, attr = path.rpartition(".")
        if not module:
            return self.unnamed().get(path) or self.load(path)
        try:
            cls = getattr(import_module(module), attr)
        except (ImportError, AttributeError) as error:
            if (moved := self._own_class(module, attr)) is not None:
                return moved
            raise UsageError(f"The {self.kind} {path!r} cannot be imported: {error}") from error
        return self._checked(cls, path)

    def _own_class(self, module: str, attr: str) -> type[ComponentT] | None:
        """Find a class of lit_dense whose module has moved since an earlier version wrote the path into a file."""
        if module.partition(".")[0] != PACKAGE:
            return None
        return self.load(name) if (name := self._own_name(attr)) is not None else None

    def _own_name(self, cls: str) -> str | None:
        """Return the registered name of a class of lit_dense.

        Only classes in submodules of the group's module count: the module itself would call this registry again.
        """
        own = f"{self.home}."
        return next((n for n, (p, *_) in self.points.items() if p.attr == cls and p.module.startswith(own)), None)

    def has(self, name: str) -> bool:
        """Whether a name belongs to an entry point or an imported class."""
        return name in self.points or name in self.unnamed()

    def unknown(self, name: str) -> str:
        """Return the error message for an unknown name."""
        here = f"{__name__.split('.')[0]}."
        owned = [
            n if points[0].module.startswith(here) else f"{n} ({_owner(points[0])})"
            for n, points in self.points.items()
        ]
        by_class = {points[0].attr.lower(): n for n, points in self.points.items()}
        hint = nearest(by_class.get(name.lower(), name), [*self.points, *self.unnamed()])
        if "," in name:
            hint = f" Several are written as a list, [{name}], where a list is accepted."
        return f"Unknown {self.kind} {name!r}.{hint} Available: {', '.join([*owned, *self.unnamed()]) or 'none'}."

    def unknown_args(self, cls: type, given: Iterable[str]) -> str | None:
        """Return the error message for arguments that a class does not accept; None if all are accepted."""
        accepted = accepted_args(cls)
        bad = [] if accepted is None else [name for name in given if name not in accepted]
        if not bad or accepted is None:
            return None
        listed = ", ".join(map(repr, bad))
        return (
            f"{self._title(cls)} has no argument {listed}.{nearest(bad[0], accepted)} "
            f"Accepted: {', '.join(map(str, accepted.values())) or 'none'}."
        )

    def outside_args(self, path: str, outside: Sequence[str]) -> str:
        """Return the error message for arguments that stand beside ``init_args``."""
        listed = ", ".join(f"{name}: ..." for name in outside)
        return (
            f"A {self.kind} has only class_path and init_args: its arguments belong into init_args, as in "
            f"{{class_path: {path}, init_args: {{{listed}}}}}."
        )

    def missing_args(self, cls: type, given: Iterable[str]) -> str | None:
        """Return the error message for required arguments that are missing; None if none is missing."""
        accepted = accepted_args(cls) or {}
        missing = [name for name, p in accepted.items() if p.default is p.empty and name not in set(given)]
        if not missing:
            return None
        return f"{self._title(cls)} needs the argument {' and '.join(map(repr, missing))}."

    def _title(self, cls: type) -> str:
        return f"{self.kind.capitalize()} {self.imported().get(cls, cls.__qualname__)!r}"


def accepted_args(cls: type) -> dict[str, inspect.Parameter] | None:
    """Return the arguments that a class accepts by name; None if it accepts any.

    ``**kwargs`` are assumed to go to the constructor of the next base class.
    """
    accepted: dict[str, inspect.Parameter] = {}
    for owner in cls.__mro__:
        if "__init__" not in vars(owner):
            continue
        if owner is Component.__mro__[1]:  # nn.Module, whose __init__ accepts and ignores all arguments
            return accepted
        _, *parameters = inspect.signature(vars(owner)["__init__"]).parameters.values()
        named = {p.name: p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        accepted = named | accepted
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return accepted
    return None


def _owner(point: EntryPoint) -> str:
    """Return name and version of the package that registers an entry point."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
