"""Configurations of runs as plain data, read the way ``lit-dense fit`` reads them, without building anything."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from jsonargparse import ArgumentError

from .._version import __version__
from ..cli.command_parser import CommandParser
from ..cli.lightning_cli import CheckingTrainer, LitDenseCLI
from ..core.errors import UsageError
from ..data import CocoDataModule
from ..detectors.build import NETWORKS
from ..training import LitDetector


class _ReadingCLI(LitDenseCLI):
    """The command line up to where it would build a model."""

    def _set_seed(self) -> None:
        """Leave the random numbers of this process alone."""

    def before_instantiate_classes(self) -> None:
        """Nothing is built."""

    def instantiate_classes(self) -> None:
        """Nothing is built."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing is run."""

    @property
    def plain(self) -> dict[str, Any]:
        """The configuration of ``fit`` as plain data."""
        text = self._parser("fit").dump(self.config["fit"], skip_none=False, format="json")
        return dict(json.loads(text))


def read_configuration(words: Sequence[str], owner: str) -> dict[str, Any]:
    """What ``lit-dense fit`` with these words would train: every option with its value, defaults included.

    Args:
        words: The words after ``fit``.
        owner: Whose configuration it is, for messages.

    Raises:
        UsageError: If a word, a name or a value is not accepted, or parts do not fit together.
    """
    strict = {"exit_on_error": False}
    with without_warning_of_words():
        try:
            cli = _ReadingCLI(
                LitDetector,
                CocoDataModule,
                trainer_class=CheckingTrainer,
                parser_class=CommandParser,
                parser_kwargs={"prog": "lit-dense", "version": __version__, **strict, "fit": strict},
                args=["fit", *words],
            )
        except ArgumentError as error:
            raise UsageError(f"{owner}: {error}") from error
    found = cli.plain
    model = found["model"]
    try:
        NETWORKS[model["detector"]].criteria(model["backbone"], model, model["rpn"])
    except (UsageError, ImportError) as error:
        raise UsageError(f"{owner}: {error}") from error
    return found


@contextmanager
def without_warning_of_words() -> Iterator[None]:
    """Lightning warns where a command line is given words beside those of the process, which here is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
        yield


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """``model.lr: 0.001 before, 0.002 now`` for each value that two configurations do not share.

    An option that the old one does not have at all is one of a later version, and no difference.
    """
    before, now = dict(_leaves(old)), dict(_leaves(_known(old, new)))
    return [
        f"{name}: {before.get(name, 'not there')} before, {now.get(name, 'not there')} now"
        for name in sorted({*before, *now})
        if before.get(name, _MISSING) != now.get(name, _MISSING)
    ]


_MISSING = object()


def _known(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The new configuration without options that the old one does not have."""
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
