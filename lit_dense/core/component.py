"""The base of everything that is chosen by name: arguments that are remembered, state that is committed once."""

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from .class_counts import ClassCounts

NAME_FINDERS: list[Callable[[type], str | None]] = []
"""Each registry's look-up of the name of a class."""


def name_or_path(cls: type) -> str:
    """The registered name of a class, or its import path where it has none."""
    found = (name for finder in NAME_FINDERS if (name := finder(cls)) is not None)
    return next(found, f"{cls.__module__}.{cls.__qualname__}")


class Component(nn.Module):
    """A loss, box loss, weighter, assigner, normalizer or sampler.

    A part remembers the arguments of its constructor, so that a checkpoint can describe it as plain data. State that
    changes as training goes on lives in buffers: ``forward`` reads them and stages their next values, and the
    criterion commits these once per training step. So a part can be evaluated twice, or in validation, and its state
    stays what it was.

    Attributes:
        exclusive: What the part decides alone, of ``assignment``, ``soft_targets``, ``normalizer`` and
            ``box_normalizer``. Two parts that decide the same thing are a configuration error.
        added_args: Arguments that earlier versions of the part lacked, with the value that their absence stands for.
            A checkpoint that was written before keeps this value, whatever the default is now.
    """

    exclusive: frozenset[str] = frozenset()
    added_args: ClassVar[Mapping[str, Any]] = {}
    _init_args: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Take a class attribute ``owns``, as version 0.1.0 called it, for ``exclusive``."""
        super().__init_subclass__(**kwargs)
        if "owns" in vars(cls):
            warnings.warn(f"{cls.__name__}.owns is now called exclusive.", DeprecationWarning, stacklevel=2)
            cls.exclusive = vars(cls)["owns"]

    def __new__(cls, *args: Any, **kwargs: Any) -> "Component":
        """Note the arguments, with defaults applied: a later change of a default must not change a checkpoint."""
        self = super().__new__(cls)
        signature = inspect.signature(cls.__init__)
        try:
            bound = signature.bind(self, *args, **kwargs)
        except TypeError:  # wrong arguments, which __init__ reports; or none, for the object is being unpickled
            return self
        bound.apply_defaults()
        given: dict[str, Any] = {}
        for name, value in list(bound.arguments.items())[1:]:
            kind = signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                given.update(value)
            elif kind is not inspect.Parameter.VAR_POSITIONAL:  # nn.Module's own __init__ has *args, and uses none
                given[name] = value
        self.__dict__["_init_args"] = given  # not through nn.Module, whose __init__ has yet to run
        return self

    @property
    def spec(self) -> dict[str, Any]:
        """``class_path`` and ``init_args``: plain data that rebuilds this part.

        The class is given by its registered name, or by its import path where it has none.
        """
        args = {name: _plain(value) for name, value in self.__dict__.get("_init_args", {}).items()}
        return {"class_path": name_or_path(type(self)), "init_args": args}

    def extra_repr(self) -> str:
        """The arguments, as ``print(loss)`` shows them."""
        shown = ((name, value) for name, value in self.__dict__.get("_init_args", {}).items())
        return ", ".join(f"{name}={value!r}" for name, value in shown if not isinstance(value, nn.Module))

    def follow_spec(self, spec: Any) -> None:
        """Take the arguments that a saved spec lacks as they were when it was written.

        Args:
            spec: What :attr:`spec` gave when the checkpoint was saved.
        """
        saved = spec.get("init_args", {}) if isinstance(spec, dict) else {}
        for name, value in self.added_args.items():
            if name not in saved:
                setattr(self, name, value)
                self._init_args[name] = value
        for name, inner in saved.items():
            if isinstance(part := getattr(self, name, None), Component):
                part.follow_spec(inner)

    def prepare(self, num_classes: int) -> None:
        """Make what depends on the number of classes, such as buffers; called once, before state is loaded.

        Args:
            num_classes: C, which the head and the loss's own columns decide.
        """

    def receive_class_counts(self, counts: ClassCounts) -> None:
        """Take over what is known of the training set, after ``prepare`` and before training.

        Args:
            counts: Class frequencies; they may have fewer classes than the head has columns.
        """

    def param_groups(self) -> list[dict[str, Any]]:
        """Parameter groups for an optimiser, of a part whose parameters want settings of their own; empty for most."""
        return []

    def check_ready(self) -> None:
        """Raise a ``UsageError`` if something is missing without which the part cannot be trained."""

    def stage(self, **state: Tensor) -> None:
        """Set the next values of buffers; they take effect when the criterion commits.

        Args:
            state: Buffer names and tensors of the buffers' shapes.
        """
        self.__dict__.setdefault("_staged", {}).update({name: value.detach() for name, value in state.items()})

    def commit(self) -> None:
        """Write the staged values into the buffers."""
        for name, value in self.__dict__.pop("_staged", {}).items():
            getattr(self, name).copy_(value)

    def discard(self) -> None:
        """Forget the staged values: the step was an evaluation."""
        self.__dict__.pop("_staged", None)


def _plain(value: Any) -> Any:
    if isinstance(value, Component):
        return value.spec
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def agrees(saved: Any, spec: Any) -> bool:
    """Whether a part has all that a saved spec says of it; arguments that are newer than the file do not count.

    Args:
        saved: A spec, or a value within one, as it was saved.
        spec: What it is now.
    """
    if isinstance(saved, dict) and isinstance(spec, dict):
        return all(name in spec and agrees(value, spec[name]) for name, value in saved.items())
    if isinstance(saved, list) and isinstance(spec, list):
        return len(saved) == len(spec) and all(map(agrees, saved, spec))
    return bool(saved == spec)
