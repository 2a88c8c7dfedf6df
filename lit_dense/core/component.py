"""The base class of all components: its arguments are recorded, and its state changes once per training step."""

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from .class_counts import ClassCounts
from .errors import UsageError

NAME_FINDERS: list[Callable[[type], str | None]] = []
"""Functions that look up the registered name of a class, one for each registry."""


def name_or_path(cls: type) -> str:
    """Return the registered name of a class, or its import path if it has none."""
    names = (name for finder in NAME_FINDERS if (name := finder(cls)) is not None)
    return next(names, f"{cls.__module__}.{cls.__qualname__}")


class Component(nn.Module):
    """A loss, box loss, weighter, assigner, normalizer, calibrator or sampler.

    A component records the arguments of its constructor, so that a checkpoint can describe it as plain data. State that
    changes during training is kept in buffers: ``forward`` reads the buffers and stages their next values, and the
    criterion commits these once per training step. A second evaluation of a batch, or a validation, therefore does not
    change the state.

    Attributes:
        exclusive: Decisions that the component makes alone, from ``assignment``, ``soft_targets``, ``normalizer``,
            ``box_normalizer`` and ``weights``. Two components that make the same decision are a configuration error.
        added_args: Arguments that earlier versions of the component lacked, with the value that their absence means.
            A checkpoint of such a version keeps this value, even if the default has changed since.
    """

    exclusive: frozenset[str] = frozenset()
    added_args: ClassVar[Mapping[str, Any]] = {}
    _init_args: dict[str, Any]
    _initial: dict[str, Tensor]  # of parameters and buffers that training changes, before its first step

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Accept a class attribute ``owns``, which is the name of ``exclusive`` in version 0.1.0."""
        super().__init_subclass__(**kwargs)
        if "owns" in vars(cls):
            warnings.warn(f"{cls.__name__}.owns is now called exclusive.", DeprecationWarning, stacklevel=2)
            cls.exclusive = vars(cls)["owns"]

    def __new__(cls, *args: Any, **kwargs: Any) -> "Component":
        """Record the arguments and the defaults: a later change of a default must not change a checkpoint."""
        self = super().__new__(cls)
        signature = inspect.signature(cls.__init__)
        try:
            bound = signature.bind(self, *args, **kwargs)
        except TypeError:  # __init__ reports wrong arguments; an object that is being unpickled has none
            return self
        bound.apply_defaults()
        given: dict[str, Any] = {}
        for name, value in list(bound.arguments.items())[1:]:
            kind = signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                given.update(value)
            elif kind is not inspect.Parameter.VAR_POSITIONAL:  # nn.Module's own __init__ has *args and ignores them
                given[name] = value
        self.__dict__["_init_args"] = given  # nn.Module.__setattr__ fails before nn.Module.__init__ has run
        return self

    @property
    def spec(self) -> dict[str, Any]:
        """``class_path`` and ``init_args``: plain data that rebuilds this component.

        The class is given by its registered name, or by its import path if it has none.
        """
        args = {name: _plain(value) for name, value in self.__dict__.get("_init_args", {}).items()}
        return {"class_path": name_or_path(type(self)), "init_args": args}

    def extra_repr(self) -> str:
        """Return the arguments as text for ``print(loss)``."""
        shown = ((name, value) for name, value in self.__dict__.get("_init_args", {}).items())
        return ", ".join(f"{name}={value!r}" for name, value in shown if not isinstance(value, nn.Module))

    def follow_spec(self, spec: Any) -> None:
        """Set the arguments that a saved spec lacks to the values that were in effect when it was saved.

        Args:
            spec: The value of :attr:`spec` in the checkpoint.
        """
        saved = spec.get("init_args", {}) if isinstance(spec, dict) else {}
        for name, value in self.added_args.items():
            if name not in saved:
                setattr(self, name, value)
                self._init_args[name] = value
        for name, inner in saved.items():
            if isinstance(component := getattr(self, name, None), Component):
                component.follow_spec(inner)

    def prepare(self, num_classes: int) -> None:
        """Create the state that depends on the number of classes, such as buffers; called once, before state is loaded.

        Args:
            num_classes: C, the number of columns of the head without the extra columns of the loss.
        """

    def prepare_all(self, num_classes: int) -> None:
        """Call :meth:`prepare` of this component and of those inside it, for use without a criterion."""
        for part in self.modules():
            if isinstance(part, Component):
                part.prepare(num_classes)

    def receive_class_counts(self, counts: ClassCounts) -> None:
        """Store the class counts of the training set; called after ``prepare`` and before training.

        Args:
            counts: Class counts; they may have fewer classes than the head has columns.
        """

    def param_groups(self) -> list[dict[str, Any]]:
        """Return parameter groups for the optimiser if the parameters need settings of their own; empty by default."""
        return []

    def check_ready(self) -> None:
        """Raise a ``UsageError`` if the component lacks something that training needs."""

    def stage(self, **state: Tensor) -> None:
        """Set the next values of buffers; they take effect when the criterion commits.

        Args:
            state: The next value of each buffer by its name, in the shape of the buffer.
        """
        self.__dict__.setdefault("_staged", {}).update({name: value.detach() for name, value in state.items()})

    def commit(self) -> None:
        """Write the staged values into the buffers."""
        if "_initial" not in self.__dict__:
            self.__dict__["_initial"] = {name: value.detach().clone() for name, value in self.named_parameters()}
        for name, value in self.__dict__.pop("_staged", {}).items():
            buffer = getattr(self, name)
            if name not in self._initial:
                self._initial[name] = buffer.clone()
            buffer.copy_(value)

    def check_fresh(self) -> None:
        """Check that no other criterion has trained this component; called after ``prepare`` by a new criterion.

        Raises:
            UsageError: If it has the state of other training steps, which would change the numbers without a word.
        """
        now = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        for name, initial in self.__dict__.get("_initial", {}).items():
            if now[name].shape == initial.shape and not now[name].detach().cpu().equal(initial.cpu()):
                raise UsageError(
                    f"This {type(self).__name__} has the state of training steps with another criterion: give each "
                    "run, and each stage of a detector, a name, a dict or a new object."
                )

    def discard(self) -> None:
        """Drop the staged values: the step was an evaluation."""
        self.__dict__.pop("_staged", None)


def _plain(value: Any) -> Any:
    if isinstance(value, Component):
        return value.spec
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def differing(saved: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield the name, the saved spec and the own spec of each component that does not agree with its saved spec.

    Args:
        saved: Specs of components by name.
        own: Specs of at least these components now.
    """
    for name, spec in saved.items():
        if not agrees(spec, own[name]):
            yield name, spec, own[name]


def agrees(saved: Any, spec: Any) -> bool:
    """Whether a component agrees with a saved spec; arguments that the saved spec lacks are ignored.

    Args:
        saved: The saved spec, or a value within it.
        spec: The spec of the component now, or the same value within it.
    """
    if isinstance(saved, dict) and isinstance(spec, dict):
        return all(name in spec and agrees(value, spec[name]) for name, value in saved.items())
    if isinstance(saved, list) and isinstance(spec, list):
        return len(saved) == len(spec) and all(map(agrees, saved, spec))
    return bool(saved == spec)
