"""Configurations of runs as plain data, read in the same way as by ``lit-dense fit`` but without building objects."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from jsonargparse import ArgumentError

from .._version import __version__
from ..cli.lightning_cli import CheckingTrainer, LitDenseCLI
from ..core.errors import UsageError
from ..criterion import CriterionArgs
from ..data import CocoDataModule
from ..detectors.from_arguments import NETWORKS
from ..training import LitDetector


class _ReadingCLI(LitDenseCLI):
    """The command line without seeding, building or running anything."""

    def _set_seed(self) -> None:
        """Keep the random state of this process."""

    def before_instantiate_classes(self) -> None:
        """Do nothing."""

    def instantiate_classes(self) -> None:
        """Do nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Do nothing."""

    @property
    def plain(self) -> dict[str, Any]:
        """The configuration of ``fit`` as plain data."""
        text = self._parser("fit").dump(self.config["fit"], skip_none=False, format="json")
        return dict(json.loads(text))


def read_configuration(arguments: Sequence[str], owner: str) -> dict[str, Any]:
    """Return the configuration of ``lit-dense fit`` with these arguments: all options with values, also defaults.

    Args:
        arguments: The arguments after ``fit``.
        owner: Name of the configuration in messages.

    Raises:
        UsageError: If an argument, a name or a value is not accepted, or parts are not compatible.
    """
    strict = {"exit_on_error": False}
    with without_args_warning():
        try:
            cli = _ReadingCLI(
                LitDetector,
                CocoDataModule,
                trainer_class=CheckingTrainer,
                parser_kwargs={"prog": "lit-dense", "version": __version__, **strict, "fit": strict},
                args=["fit", *arguments],
            )
        except ArgumentError as error:
            raise UsageError(f"{owner}: {error}") from error
    configuration = cli.plain
    model = configuration["model"]
    chosen = cast(CriterionArgs, {name: model[name] for name in CriterionArgs.__annotations__})
    try:
        NETWORKS[model["detector"]].criteria(model["backbone"], chosen, model["rpn"])
    except (UsageError, ImportError) as error:
        raise UsageError(f"{owner}: {error}") from error
    return configuration


class _DataCLI(LitDenseCLI):
    """The command line of ``check`` without running it: the data module, and a model without network."""

    def _set_seed(self) -> None:
        """Keep the random state of this process."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Do nothing."""


def build_data(arguments: Sequence[str]) -> tuple[CocoDataModule, LitDetector]:
    """Build the data module of a configuration, and the model without its network.

    Args:
        arguments: The arguments after ``check``.

    Raises:
        UsageError: If a name or a value is not accepted.
    """
    with without_args_warning():
        cli = _DataCLI(
            LitDetector,
            CocoDataModule,
            trainer_class=CheckingTrainer,
            parser_kwargs={"prog": "lit-dense", "version": __version__},
            args=["check", *arguments],
        )
    return cast(CocoDataModule, cli.datamodule), cast(LitDetector, cli.model)


@contextmanager
def without_args_warning() -> Iterator[None]:
    """Silence Lightning's warning about arguments that are not those of the process, which is intended here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
        yield


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """List the values that differ between two configurations, as ``model.lr: 0.001 before, 0.002 now``.

    An option that is missing in the old configuration comes from a later version and is not a difference.
    """
    before, now = dict(_leaves(old)), dict(_leaves(_known(old, new)))
    return [
        f"{name}: {before.get(name, 'missing')} before, {now.get(name, 'missing')} now"
        for name in sorted({*before, *now})
        if before.get(name, _MISSING) != now.get(name, _MISSING)
    ]


_MISSING = object()


def _known(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the new configuration without options that the old one does not have."""
    kept = {name: value for name, value in new.items() if name in old}
    for section in ("model", "data", "trainer"):
        if isinstance(kept.get(section), Mapping) and isinstance(old[section], Mapping):
            kept[section] = {name: value for name, value in kept[section].items() if name in old[section]}
    return kept


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
