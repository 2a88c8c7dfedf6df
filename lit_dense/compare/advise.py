"""The command ``lit-dense advise``: figures of the training set, and comparisons that they suggest."""

import argparse
import json
import shlex
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import UsageError
from ..data.advice import MOST, Advice, InputSize, Trial, advise, findings, measure
from ..data.coco_data import CocoData
from ..detectors.from_arguments import NETWORKS
from ..losses import LOSSES
from ..normalizers import ImageNormalizer
from .command import passed_on
from .configuration import build_data, differences, read_configuration

SEEDS = ("0", "1", "2")
PAGE = "docs/choosing.md"
DESCRIPTION = """\
Read the training set of a configuration, and print its figures and at most three comparisons that they suggest.
Nothing is trained.

  lit-dense advise --config my.yaml
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command's options."""
    parser = argparse.ArgumentParser(
        prog="lit-dense advise",
        description=DESCRIPTION,
        epilog="Options that begin with --model., --data. or --trainer. change the configuration, as in lit-dense fit.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", "-c", nargs="+", action="extend", metavar="FILE", help="configuration of fit")
    return parser


def report(arguments: Sequence[str]) -> str:
    """Return the figures of the training set, and the comparisons that they suggest.

    Args:
        arguments: The arguments after ``advise``.

    Raises:
        UsageError: If an argument or the configuration is not accepted, or the data cannot be used.
    """
    parser = build_parser()
    options, unknown = parser.parse_known_args(arguments)
    extra = passed_on("advise", parser, unknown)
    if not options.config:
        raise UsageError("advise needs --config, the configuration that the comparisons start from.")
    data, input_size, divided_by_image = read_training_set(options.config, extra)
    figures = measure(data, input_size, divided_by_image)
    parts = [f"{data.path}:\n{findings(figures)}"]
    suggested = advise(figures)
    filters = Filter(options.config, extra) if suggested else None
    for advice in suggested:
        if filters and len(parts) <= MOST and (trials := filters.usable(advice.trials)):
            lines = command(advice, trials, options.config, extra)
            parts.append(f"{len(parts)}. {advice.reason} ({PAGE}#{advice.page})\n{lines}")
    if len(parts) == 1:
        parts.append(f"These figures suggest no comparison. For methods by symptom, see {PAGE}.")
    return "\n\n".join(parts)


def read_training_set(configs: Sequence[str], extra: Sequence[str]) -> tuple[CocoData, InputSize, bool]:
    """Read the training set, the model's input size, and whether it divides each image by its own positives.

    No network is built.

    Args:
        configs: Configuration files.
        extra: Options that change them.

    Raises:
        UsageError: If there is no training set, or the data cannot be used.
    """
    datamodule, model = build_data([*(f"--config={path}" for path in configs), *extra])
    datamodule.prepare_data()
    datamodule.setup("fit")
    smallest, options = model.network_options["min_size"], model.network_options
    shorter = smallest if isinstance(smallest, int) else smallest[-1]
    squares = NETWORKS[model.detector_name].squares
    divided_by_image = isinstance(model.criterion.normalizer, ImageNormalizer)
    return datamodule.data["train"], InputSize(int(shorter), int(options["max_size"]), squares), divided_by_image


class Filter:
    """Selection of the trials that a configuration accepts, read in the same way as by ``lit-dense compare``.

    Args:
        configs: Configuration files.
        extra: Options that change them.

    Raises:
        UsageError: If the configuration is not accepted.
    """

    def __init__(self, configs: Sequence[str], extra: Sequence[str]) -> None:
        self._files, self._extra = [f"--config={path}" for path in configs], list(extra)
        self._base = read_configuration([*self._files, *extra], "the configuration")

    def usable(self, trials: Sequence[Trial]) -> list[Trial]:
        """Return the trials that the detector accepts, and that change the configuration."""
        with tempfile.TemporaryDirectory() as folder:
            return [trial for trial in trials if self._is_usable(trial, Path(folder, f"{trial.name}.yaml"))]

    def _is_usable(self, trial: Trial, path: Path) -> bool:
        path.write_text(json.dumps(trial.settings), encoding="utf-8")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                config = read_configuration([*self._files, f"--config={path}", *self._extra], trial.name)
            except UsageError:
                return False
        ignored = any("is ignored" in str(warning.message) for warning in caught)
        return not ignored and _has_columns(config["model"]) and bool(differences(self._base, config))


def _has_columns(model: Mapping[str, Any]) -> bool:
    """Return whether the detector's head has the columns that the loss needs; otherwise the network refuses it."""
    background = NETWORKS[model["detector"]].background
    return not background or model["loss"] is None or LOSSES.build(model["loss"]).extra_logits <= background


def command(advice: Advice, trials: Sequence[Trial], configs: Sequence[str], extra: Sequence[str]) -> str:
    """Format the shell commands that write the files of the runs and compare them with the configuration as it is.

    Args:
        advice: The suggestion.
        trials: The runs.
        configs: Configuration files.
        extra: Options that change them.
    """
    folder = f"runs/advise_{advice.topic}"
    paths = {trial.name: f"{folder}/{trial.name}.yaml" for trial in trials}
    lines = [f"mkdir -p {folder}"]
    lines += [f"echo {shlex.quote(json.dumps(trial.settings))} > {paths[trial.name]}" for trial in trials]
    runs = shlex.join([f"as_is={configs[-1]}", *(f"{name}={path}" for name, path in paths.items())])
    common = shlex.join(["--config", *configs, "--seeds", *SEEDS, "--out", folder, *extra])
    return "\n".join(f"    {line}" for line in [*lines, f"lit-dense compare {common} \\", f"  --runs {runs}"])
