"""The command ``lit-dense compare``: its arguments, and the order of its steps."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from ..core.errors import UsageError, nearest

if TYPE_CHECKING:
    from .committed import Committed
    from .plan import Run

PASSED_ON = ("--model.", "--data.", "--trainer.")
DESCRIPTION = """\
Train several configurations at equal budget and write one report of the differences: report.html and report.md.

  lit-dense compare --config configs/demo.yaml --runs focal bce --seeds 0 1 2 --out runs/compare
  lit-dense compare --config base.yaml --runs focal focal+pisa configs/recipes/qfl.yaml mine=my.yaml --steps 400
  lit-dense compare --out runs/compare      # write the report of existing runs again
  lit-dense compare --results results/machine_a results/machine_b --baseline focal      # join results

Each run is a separate process. Repeat the command to resume: finished runs are skipped, and interrupted runs continue
from their last checkpoint. The weights at the end of training are evaluated.
"""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command's options."""
    parser = argparse.ArgumentParser(
        prog="lit-dense compare",
        description=DESCRIPTION,
        epilog="Options that begin with --model., --data. or --trainer. apply to every run, as in lit-dense fit.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--config", nargs="+", action="extend", metavar="FILE", help="common configuration of all runs")
    add(
        *("--runs", "-r"),
        nargs="+",
        action="extend",
        metavar="RUN",
        help="what differs: a loss; loss+weighter+weighter (with default arguments, and without other weighters); or "
        "a configuration that overrides the common one, as file.yaml or name=file.yaml; file.yaml+weighter adds a "
        "weighter to those of the file",
    )
    add("--out", type=Path, default=Path("runs/compare"), metavar="FOLDER", help="default: runs/compare")
    add(
        "--seeds",
        nargs="+",
        action="extend",
        type=int,
        metavar="SEED",
        help="each run is trained with each seed; default: 0, but one seed cannot separate a difference from noise",
    )
    add(
        *("--steps", "--budget"),
        type=_positive,
        metavar="N",
        help="optimiser steps of each run; default: those of the configuration",
    )
    add("--validations", type=_positive, default=4, metavar="N", help="validations during training; default: 4")
    add("--baseline", metavar="RUN", help="the run that the others are compared with; default: the first")
    add(
        "--results",
        nargs="+",
        action="extend",
        type=Path,
        metavar="FOLDER",
        help="add the results of other machines and days, each a copy of the folder OUT/results; runs that have a "
        "result are not trained again",
    )
    add(
        "--mix-versions",
        action="store_true",
        help="join results of different versions of lit-dense, its code or torch; the report then says so",
    )
    add(
        "--jobs",
        type=_positive,
        metavar="N",
        help="concurrent runs, which share cores and GPUs; default: 1, and with --ray one for each GPU or machine",
    )
    add(
        "--ray",
        nargs="?",
        const="auto",
        metavar="ADDRESS",
        help="train on a Ray cluster: its address, 'local' for a cluster on this machine, no value for the current "
        "cluster; needs pip install 'lit-dense[ray]', and --out on a disk that all machines share",
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"at least 1, not {text}")
    return number


def read_words(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse arguments into the command's options and the options for every run.

    Raises:
        UsageError: If an argument is neither.
    """
    parser = build_parser()
    options, unknown = parser.parse_known_args(arguments)
    return options, passed_on("compare", parser, unknown)


def passed_on(verb: str, parser: argparse.ArgumentParser, unknown: Sequence[str]) -> list[str]:
    """Return the arguments that the command's parser does not know and that are options of ``lit-dense fit``.

    Args:
        verb: The command, for messages.
        parser: Its parser.
        unknown: The arguments that the parser does not know.

    Raises:
        UsageError: If an argument is neither.
    """
    known = [name for action in parser._actions for name in action.option_strings]
    extra: list[str] = []
    for argument in unknown:
        if argument.startswith(PASSED_ON) or (extra and not argument.startswith("-") and "=" not in extra[-1]):
            extra.append(argument)
        else:
            hint = nearest(argument.split("=")[0], known)
            raise UsageError(
                f"{verb}: unknown argument {argument!r}.{hint} Options for every run begin with {_listed()}."
            )
    return extra


def _listed() -> str:
    return ", ".join(PASSED_ON[:-1]) + " or " + PASSED_ON[-1]


def main(arguments: Sequence[str]) -> int:
    """Train the unfinished runs, and write the report.

    Args:
        arguments: The arguments after ``compare``.

    Returns:
        The exit status: 1 if a run failed.

    Raises:
        UsageError: If an argument, a configuration or the content of the folder is not accepted.
    """
    options, extra = read_words(arguments)
    from .committed import load_folders
    from .files import RECORD
    from .local_processes import alone
    from .plan import check_baseline, choose, plan, record

    failed = []
    if options.mix_versions and not options.results:
        raise UsageError("compare: --mix-versions needs --results, the folders whose results it joins.")
    given = load_folders(options.results or [])
    if options.runs:
        if not options.config:
            raise UsageError("compare: --runs needs --config, the common configuration of all runs.")
        runs, shared = plan(
            options.config, choose(options.runs), options.seeds or [0], options.steps, options.validations, extra
        )
        names = [run.name for run in runs]
        if given:
            from .joining import missing

            runs = missing(runs, shared, given, options.mix_versions)
            baseline = check_baseline(options.baseline, [*names, *(result.name for result in given)])
            names += [baseline] if baseline else []
        options.out.mkdir(parents=True, exist_ok=True)
        with alone(options.out):
            record(options.out, runs, shared, options.baseline, names)
            failed = _train(runs, options)
    elif options.config or extra or options.seeds or options.steps:
        raise UsageError("compare: give --runs to train, or only --out to report existing runs.")
    elif not given and not (options.out / RECORD).is_file():
        raise UsageError(f"compare: there is no comparison in {options.out}; give --config and --runs to make one.")
    _write_report(options, given)
    return 1 if failed else 0


def _write_report(options: argparse.Namespace, given: "Sequence[Committed]") -> None:
    from .committed import export_all, load_folders
    from .files import RESULT, RESULTS
    from .joining import data_notes, join, version_notes
    from .report import write
    from .results import read
    from .sections import summary

    options.out.mkdir(parents=True, exist_ok=True)
    for warning in export_all(options.out):
        print(warning, file=sys.stderr)
    own = load_folders([options.out / RESULTS]) if (options.out / RESULTS).is_dir() else []
    own = [result for result in own if (result.run.folder(options.out) / RESULT).is_file()]
    joined: list[Committed] = []
    if given:
        joined, notes = join([*given, *own], options.mix_versions)
    else:
        notes = [*data_notes(own), *version_notes(own, mix_versions=True)]
    comparison = read(options.out, options.baseline, joined, notes)
    paths = write(comparison)
    print(summary(comparison))
    print("\n".join([*notes, *(f"Report: {path.resolve()}" for path in paths)]))


def _train(runs: "Sequence[Run]", options: argparse.Namespace) -> "list[Run]":
    """Train the runs; Ctrl-C and SIGTERM stop their processes first."""
    from .local_processes import train_here
    from .ray_tune import train_on_ray

    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        if options.ray:
            return train_on_ray(runs, options.out, options.ray, options.jobs)
        return train_here(runs, options.out, options.jobs or 1)
    except KeyboardInterrupt:
        print("\nStopped. Repeat the command to resume every run.", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
