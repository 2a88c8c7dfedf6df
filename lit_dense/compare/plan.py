"""The runs of a comparison: each has one name and one seed, one folder and one configuration."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..core.errors import UsageError
from ..losses import LOSSES
from ..metrics.arguments import read_limits
from ..metrics.backends import Protocol
from ..weighters import WEIGHTERS
from .configuration import differences, read_configuration
from .files import RECORD, RUN, read_record, write_json

ONLY_ITS_OWN = ("seed_everything",)


@dataclass(frozen=True)
class Choice:
    """One parsed value of ``--runs``.

    Args:
        name: The run's name in folders and tables.
        words: Additional arguments of ``lit-dense fit``.
    """

    name: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """One configuration with one seed.

    Args:
        name: Name of the configuration.
        seed: The seed.
        words: The arguments of ``lit-dense fit`` that train it.
        config: The parsed arguments, every option with its value.
        working_folder: Working directory of the command; paths in the configuration are relative to it.
    """

    name: str
    seed: int
    words: list[str]
    config: dict[str, Any]
    working_folder: str

    @property
    def command(self) -> str:
        """The command that trains the same run without a comparison."""
        return shlex.join(["lit-dense", "fit", *self.words])

    def folder(self, out: Path) -> Path:
        """Return the run's folder inside the folder of the comparison."""
        return out / self.name / f"seed-{self.seed}"

    def save(self, out: Path) -> None:
        """Write the file that the worker reads."""
        folder = self.folder(out)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / RUN, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> "Run":
        """Read the run of a folder."""
        return cls(**json.loads((folder / RUN).read_text()))


def choose(values: Sequence[str]) -> list[Choice]:
    """Parse the values of ``--runs``: ``loss``, ``file.yaml`` or ``name=file.yaml``, each with optional ``+weighter``.

    Raises:
        UsageError: For an unknown name, a missing file, a repeated name, or a name that is not valid for a folder.
    """
    choices = [_choose(value) for value in values]
    names = [choice.name for choice in choices]
    folded = [name.casefold() for name in names]  # each run has a folder, and some file systems ignore case
    if repeated := [name for name in dict.fromkeys(names) if folded.count(name.casefold()) > 1]:
        raise UsageError(f"--runs has {', '.join(map(repr, repeated))} more than once; name files: name=file.yaml.")
    return choices


def _repeated(values: Sequence[Any]) -> list[Any]:
    return sorted({value for value in values if values.count(value) > 1})


def _choose(value: str) -> Choice:
    named = "=" in value and not Path(value).is_file()  # a file's name may contain the sign, a run's may not
    name, path = value.split("=", 1) if named else ("", value)
    described = re.fullmatch(r"(.+\.ya?ml)(?:\+(.*))?", path)
    if named or described:
        file, added = described.groups() if described else (path, None)
        if not Path(file).is_file():
            raise UsageError(f"--runs: there is no file {file}.")
        weighters = [] if added is None else added.split("+")
        arguments = [f"--config={file}", *(_weighter_arguments("--model.weighters+=", weighters) if weighters else [])]
        return Choice(_checked_name(name or "+".join([Path(file).stem, *weighters])), tuple(arguments))
    loss, *weighters = value.split("+")
    try:
        LOSSES.find(loss)
    except (ImportError, TypeError) as error:
        raise UsageError(f"--runs: {error}") from error
    except UsageError as error:
        hint = " A configuration file ends in .yaml." if "/" in value else ""
        raise UsageError(f"--runs: {error}{hint}") from error
    return Choice(_checked_name(value), (f"--model.loss={loss}", *_weighter_arguments("--model.weighters=", weighters)))


def _weighter_arguments(option: str, weighters: Sequence[str]) -> list[str]:
    try:
        built = WEIGHTERS.build_list(weighters)
    except (ImportError, TypeError, UsageError) as error:
        raise UsageError(f"--runs: {error}") from error
    arguments = [f"{option}[{','.join(weighters)}]"]
    if any("assignment" in weighter.exclusive for weighter in built):
        arguments.append("--model.assigner=null")  # the weighter has its own
    return arguments


def _checked_name(name: str) -> str:
    if not re.fullmatch(r"[\w+-][\w.+-]*", name):
        raise UsageError(f"--runs: {name!r} is not a valid name of a run: use letters, digits and any of . _ + -.")
    return name


def plan(
    configs: Sequence[str],
    choices: Sequence[Choice],
    seeds: Sequence[int],
    steps: int | None,
    validations: int,
    extra: Sequence[str] = (),
) -> tuple[list[Run], dict[str, Any]]:
    """Return all runs, ordered by seed, and their common configuration.

    Args:
        configs: Configuration files of all runs.
        choices: The differences between runs.
        seeds: Seeds of each run.
        steps: Optimiser steps of each run; None uses the length in the files.
        validations: Largest number of validations during training.
        extra: Further arguments of every run.

    Raises:
        UsageError: If a seed is given twice, a configuration is not accepted, the length of training is missing, or a
            run is evaluated by rules of its own.
    """
    if repeated := _repeated(seeds):
        raise UsageError(f"--seeds has {', '.join(map(str, repeated))} more than once.")
    first = [f"--config={path}" for path in configs]
    length = [] if steps is None else [f"--trainer.max_steps={steps}", "--trainer.max_epochs=-1"]
    base = read_configuration([*first, *length, *extra], "the common configuration")
    cadence = _cadence(base["trainer"], validations)
    data_seed_given = any(argument.startswith("--data.seed") for argument in extra)
    runs = []
    for choice in choices:
        arguments = [*first, *choice.words, *length, *cadence, *extra]
        config = read_configuration(arguments, f"run {choice.name!r}")
        own_cadence = _cadence(config["trainer"], validations)
        if own_cadence != cadence:  # its files set another length or accumulation
            arguments = [*first, *choice.words, *length, *own_cadence, *extra]
            config = read_configuration(arguments, f"run {choice.name!r}")
        _check_rules(choice.name, evaluation_rules(config["model"]), evaluation_rules(base["model"]))
        vary_data = not config["data"]["val_split"] and not data_seed_given  # its seed also decides the split
        for seed in seeds:
            own = [f"--seed_everything={seed}", *([f"--data.seed={seed}"] if vary_data else [])]
            with_seed = {**config, "seed_everything": seed}
            if vary_data:
                with_seed["data"] = {**config["data"], "seed": seed}
            runs.append(Run(choice.name, seed, [*arguments, *own], with_seed, str(Path.cwd())))
    shared = {name: value for name, value in base.items() if name not in ONLY_ITS_OWN}
    shared["validations"] = validations
    return sorted(runs, key=lambda run: list(seeds).index(run.seed)), shared


def evaluation_rules(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that decide what AP is, with the values that are used; AP of other rules is another measure.

    Args:
        model: The options of the model.
    """
    protocol: Protocol = model.get("eval_protocol") or "coco"
    return {
        "eval_protocol": protocol,
        "eval_max_detections": read_limits(model.get("eval_max_detections"), protocol)[-1],
    }


def _check_rules(name: str, own: Mapping[str, Any], common: Mapping[str, Any]) -> None:
    for option, value in own.items():
        if value != common[option]:
            raise UsageError(
                f"--runs: {name} is evaluated with {option}={value}, and the common configuration with "
                f"{option}={common[option]}: their AP would be different measures. Give --model.{option}={value} to "
                "all runs, or leave it out."
            )


def _cadence(trainer: Mapping[str, Any], validations: int) -> list[str]:
    """Return the arguments that set the validation interval, from the length of the run in steps or epochs."""
    steps, epochs = trainer["max_steps"], trainer["max_epochs"]
    if steps is not None and steps > 0:
        batches = -(-steps // validations) * trainer["accumulate_grad_batches"]
        return [f"--trainer.val_check_interval={batches}", "--trainer.check_val_every_n_epoch=null"]
    if epochs is None or epochs < 1:
        raise UsageError("The configuration sets neither max_steps nor max_epochs: give --steps.")
    if epochs >= validations:
        return ["--trainer.val_check_interval=1.0", f"--trainer.check_val_every_n_epoch={-(-epochs // validations)}"]
    share = 1 / -(-validations // epochs)
    return [f"--trainer.val_check_interval={share:.6g}", "--trainer.check_val_every_n_epoch=1"]


def record(
    out: Path, runs: Sequence[Run], shared: dict[str, Any], baseline: str | None, names: Sequence[str] = ()
) -> None:
    """Write the plan into the folder of the comparison, in addition to the existing runs.

    Args:
        out: The folder.
        runs: The runs to train in it.
        shared: Their common configuration.
        baseline: Name of the baseline; by default the one that is recorded, or else the first run.
        names: Names of all configurations, also of those whose results are in other folders, in their order.

    Raises:
        UsageError: If the folder has another common configuration or a run of the same name with another configuration,
            or if the baseline is not the name of a run.
    """
    old = read_record(out) or {"names": [], "baseline": None, "shared": shared}
    _refuse(differences(old["shared"], shared), f"{out} has runs of another common configuration")
    for run in runs:
        if (run.folder(out) / RUN).exists():
            before = Run.load(run.folder(out))
            changes = differences(before.config, run.config)
            _refuse(changes, f"{run.folder(out)} has a run of that name with another configuration")
    names = list(dict.fromkeys([*old["names"], *names, *(run.name for run in runs)]))
    baseline = check_baseline(baseline, names) or old["baseline"] or names[0]
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / RECORD, {"names": names, "baseline": baseline, "shared": shared})
    for run in runs:
        if not (run.folder(out) / RUN).exists():
            run.save(out)


def check_baseline(baseline: str | None, names: Sequence[str]) -> str | None:
    """Return the baseline after checking that it is None or one of the names.

    Raises:
        UsageError: If it is neither.
    """
    if baseline is not None and baseline not in names:
        raise UsageError(f"--baseline: there is no run {baseline!r}; there are {', '.join(names)}.")
    return baseline


def _refuse(changes: Sequence[str], what: str) -> None:
    if changes:
        more = f"\n  ... and {len(changes) - 10} more" if len(changes) > 10 else ""
        raise UsageError(f"{what}:\n  " + "\n  ".join(changes[:10]) + f"{more}\nUse another --out.")
