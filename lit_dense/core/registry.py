"""Names of parts: one entry-point group is one :class:`Registry`.

A registry is met in three ways:

* in Python: ``LOSSES.build("focal")``;
* as a namespace: ``lit_dense.losses.focal`` is the class behind the entry point ``focal`` of the group
  ``lit_dense.losses``, so that a name is also an import path;
* on a command line or in a YAML file: as the annotation that :func:`lit_dense.core.cli_types.cli_type` makes.

Names are listed from the metadata of installed packages; a plug-in is imported when it is chosen.
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
        group: The entry-point group, which is also the import path of the module that shows its names.
        kind: What the members are called in messages, such as ``loss``.
        base: What every member is a subclass of.
    """

    def __init__(self, group: str, kind: str, base: type[ComponentT]) -> None:
        self.group, self.kind, self.base = group, kind, base
        self._listing = False
        NAME_FINDERS.append(self.name_of)

    def name_of(self, cls: type) -> str | None:
        """The registered name of a class; None where it has none, or two packages claim it."""
        name = self.imported().get(cls) if issubclass(cls, self.base) else None
        return name if name is None or len(self.points[name]) == 1 else None

    def named(self, spec: Any) -> Any:
        """A saved spec with registered names in place of import paths, as far as they can be found.

        Files of version 0.1.0 hold import paths.

        Args:
            spec: ``class_path`` and ``init_args``, a list of such, or None.
        """
        if isinstance(spec, list):
            return [self.named(item) for item in spec]
        if not isinstance(spec, dict) or "class_path" not in spec:
            return spec
        try:
            cls = self.find(spec["class_path"])
        except (UsageError, ImportError, TypeError):  # what is not installed here is compared as it is
            return spec
        args = {name: self.named(value) for name, value in (spec.get("init_args") or {}).items()}
        return {"class_path": name_or_path(cls), "init_args": args}

    @cached_property
    def points(self) -> dict[str, list[EntryPoint]]:
        """The entry points that claim each name; more than one is a clash. Reads package metadata only."""
        claims: dict[str, dict[str, EntryPoint]] = {}
        for point in sorted(entry_points(group=self.group), key=lambda p: (p.name, p.value)):
            if point.name.isidentifier():
                claims.setdefault(point.name, {})[point.value] = point
            else:
                warnings.warn(
                    f"The {self.kind} {point.name!r} of {_owner(point)} is left out: a name must be an identifier.",
                    stacklevel=2,
                )
        return {name: self._settle(list(points.values())) for name, points in claims.items()}

    def _settle(self, points: list[EntryPoint]) -> list[EntryPoint]:
        """Our own names win over a plug-in's."""
        own = [p for p in points if p.value.startswith(f"{PACKAGE}.")]
        if own and len(points) > len(own):
            others = ", ".join(_owner(p) for p in points if p not in own)
            warnings.warn(
                f"The {self.kind} {own[0].name!r} is lit_dense's own; that of {others} is reached by its import path.",
                stacklevel=2,
            )
        return own or points

    def imported(self) -> dict[type, str]:
        """Names of the entry points whose modules are imported, by class."""
        found: dict[type, str] = {}
        for name, points in self.points.items():
            for point in points:
                if cls := getattr(sys.modules.get(point.module), point.attr, None):
                    found[cls] = name
        return found

    def unnamed(self) -> dict[str, type]:
        """Imported subclasses of the base that have no name, such as those of a user's script, by class name."""
        found: dict[str, type] = {}
        named, todo = self.imported(), [self.base]
        while todo:
            for sub in todo.pop().__subclasses__():
                todo.append(sub)
                if sub not in named and not sub.__name__.startswith("_") and not inspect.isabstract(sub):
                    found.setdefault(sub.__name__, sub)
        return found

    def load(self, name: str) -> type[ComponentT]:
        """Import the class behind a name.

        Raises:
            UsageError: If there is none, or two packages claim the name.
            ImportError: If the package that brings it cannot be imported.
            TypeError: If it is no such part.
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
        """While names are only listed, looking one up as an attribute must not import its package."""
        self._listing = True
        try:
            yield
        finally:
            self._listing = False

    def attribute(self, name: str) -> Any:
        """The ``__getattr__`` of the module that is called like the group: a registered name, or a class of ours."""
        if self._listing or name.startswith("_"):
            raise AttributeError(name)
        if name in self.points:
            return self.load(name)
        if (named := self._own_name(name)) is not None:
            return self.load(named)
        raise AttributeError(f"module {self.group!r} has no attribute {name!r}. {self.unknown(name)}")

    def build(self, value: ComponentT | str | dict[str, Any]) -> ComponentT:
        """A part from a part, a name, or ``{"class_path": name or import path, "init_args": {...}}``.

        Raises:
            UsageError: If the name, the import path or an argument is unknown.
            TypeError: If the value is none of the three.
        """
        if isinstance(value, self.base):
            return value
        described: Any = {"class_path": value} if isinstance(value, str) else value
        if not isinstance(described, dict) or not isinstance(described.get("class_path"), str):
            raise TypeError(
                f"A {self.kind} is given as a {self.base.__name__}, a name or a dict with class_path and init_args, "
                f"not as {value!r}."
            )
        cls, args = self.find(described["class_path"]), described.get("init_args") or {}
        if problem := self.unknown_args(cls, args) or self.missing_args(cls, args):
            raise UsageError(problem)
        return cls(**args)

    def build_list(
        self, values: Sequence[ComponentT | str | dict[str, Any]] | ComponentT | str | dict[str, Any]
    ) -> list[ComponentT]:
        """Several parts, each given as for :meth:`build`; one part may be given without a list."""
        single = isinstance(values, (self.base, str, dict))
        listed: Sequence[Any] = [values] if single else values  # type: ignore[assignment]
        return [self.build(value) for value in listed]

    def find(self, path: str) -> type[ComponentT]:
        """The class of a name, of an imported subclass or of an import path.

        Raises:
            UsageError: If there is none.
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
        """The class of ours that a file of an earlier version names by a module that has moved since."""
        if module.partition(".")[0] != PACKAGE:
            return None
        return self.load(name) if (name := self._own_name(attr)) is not None else None

    def _own_name(self, cls: str) -> str | None:
        """The registered name of a class in a module of ours below the group's own, which would ask here again."""
        own = f"{self.group}."
        return next((n for n, (p, *_) in self.points.items() if p.attr == cls and p.module.startswith(own)), None)

    def has(self, name: str) -> bool:
        """Whether a name is that of an entry point or of an imported class."""
        return name in self.points or name in self.unnamed()

    def unknown(self, name: str) -> str:
        """What to say of a name that nothing has."""
        owned = [f"{n} ({_owner(points[0])})" for n, points in self.points.items()]
        by_class = {points[0].attr.lower(): n for n, points in self.points.items()}
        hint = nearest(by_class.get(name.lower(), name), [*self.points, *self.unnamed()])
        if "," in name:
            hint = f" Several are written as a list, [{name}], where a list is accepted."
        return f"Unknown {self.kind} {name!r}.{hint} Available: {', '.join([*owned, *self.unnamed()]) or 'none'}."

    def unknown_args(self, cls: type, given: Iterable[str]) -> str | None:
        """What to say of arguments that a class does not accept; None if there is nothing to say."""
        accepted = accepted_args(cls)
        bad = [] if accepted is None else [name for name in given if name not in accepted]
        if not bad or accepted is None:
            return None
        listed = ", ".join(map(repr, bad))
        return (
            f"{self._title(cls)} has no argument {listed}.{nearest(bad[0], accepted)} "
            f"Accepted: {', '.join(map(str, accepted.values())) or 'none'}."
        )

    def missing_args(self, cls: type, given: Iterable[str]) -> str | None:
        """What to say of arguments that a class needs and did not get; None if there is nothing to say."""
        accepted = accepted_args(cls) or {}
        missing = [name for name, p in accepted.items() if p.default is p.empty and name not in set(given)]
        if not missing:
            return None
        return f"{self._title(cls)} needs the argument {' and '.join(map(repr, missing))}."

    def _title(self, cls: type) -> str:
        return f"{self.kind.capitalize()} {self.imported().get(cls, cls.__qualname__)!r}"


def accepted_args(cls: type) -> dict[str, inspect.Parameter] | None:
    """The arguments that a class accepts by name, ``**kwargs`` taken to go to the next class; None if it takes any."""
    accepted: dict[str, inspect.Parameter] = {}
    for owner in cls.__mro__:
        if "__init__" not in vars(owner):
            continue
        if owner is Component.__mro__[1]:  # nn.Module, whose __init__ takes anything and uses nothing
            return accepted
        _, *parameters = inspect.signature(vars(owner)["__init__"]).parameters.values()
        named = {p.name: p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        accepted = named | accepted
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return accepted
    return None


def _owner(point: EntryPoint) -> str:
    """The package that brings an entry point."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
