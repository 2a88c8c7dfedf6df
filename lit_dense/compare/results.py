"""The results of a comparison, read from its folder and from committed files; the only input of the report."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..core.errors import UsageError
from ..metrics.arguments import MAX_DETECTIONS
from ..metrics.backends import Protocol
from ..metrics.bootstrap import resampled_ap
from ..metrics.compact_table import load_compact, load_image_ids
from ..metrics.detection_table import DetectionTable
from ..metrics.evaluation import Evaluation
from .committed import Committed
from .files import (
    CHECKPOINT,
    FAILURE,
    JOINED,
    RESAMPLED,
    RESULT,
    ROWS,
    RUN,
    TABLES,
    load_tables,
    read_record,
    write_arrays,
)
from .plan import Run, check_baseline, evaluation_rules
from .provenance import same_data
from .statistics import RESAMPLES, Array, Difference, Spread, align_counts, compare, draw_counts

State = Literal["finished", "failed", "stopped", "not begun"]
Number = Literal["map", "map_50"]


@dataclass(frozen=True)
class Result:
    """The state and the results of one configuration with one seed.

    Args:
        run: The run.
        folder: The run's folder.
        state: Progress of the run.
        found: The content of the worker's result file; empty if the run is not finished.
        failure: The failure message of a failed run.
    """

    run: Run
    folder: Path
    state: State
    found: Mapping[str, Any] = field(default_factory=dict)
    failure: str = ""

    @property
    def numbers(self) -> dict[str, float]:
        """The metric's values and the losses of the last validation."""
        return dict(self.found["numbers"])

    @cached_property
    def tables(self) -> Evaluation:
        """The evaluation's arrays."""
        return load_tables(self.folder / TABLES, self.numbers)

    def plots(self) -> dict[str, Path]:
        """Return the newest plot of each kind: the name of the file, or of the folder of a series."""
        newest: dict[str, Path] = {}
        logs = self.folder / "log"
        for version in sorted(logs.glob("version_*"), key=lambda p: int(p.name.rpartition("_")[2])):
            for path in sorted(version.rglob("*.png")):
                newest[path.stem if path.parent == version else path.parent.name] = path
        return newest

    def resampled(self) -> dict[Number, Array]:
        """Return AP of resamples of the validation images, equal for every run; cached in the run's folder."""
        path, evaluated = self._resampled, self._evaluated()
        if path.exists():
            with np.load(path) as kept:
                if kept["evaluated"] == evaluated and len(kept["map"]) == RESAMPLES:
                    return {"map": kept["map"], "map_50": kept["map_50"]}
        rows = self.rows()
        counts = align_counts(draw_counts(len(rows.image_ids)), rows.image_ids, np.sort(rows.image_ids))
        limit = self.max_detections or MAX_DETECTIONS["coco"]
        ap, ap_50 = resampled_ap(rows, counts, len(self.tables.class_names), limit)
        write_arrays(path, {"evaluated": np.array(evaluated), "map": ap, "map_50": ap_50})
        return {"map": ap, "map_50": ap_50}

    @property
    def _resampled(self) -> Path:
        return self.folder / RESAMPLED

    def _evaluated(self) -> int:
        """Return a number that changes with the detections."""
        return (self.folder / ROWS).stat().st_mtime_ns

    def rows(self) -> DetectionTable:
        """Return the detections and objects of the validation images."""
        return DetectionTable.load(self.folder / ROWS)

    def unlike(self, other: "Result") -> str:
        """Return why AP of this and of another result cannot be compared; empty if it can.

        Args:
            other: The result to compare with.
        """
        rules, others = evaluation_rules(self.run.config["model"]), evaluation_rules(other.run.config["model"])
        changed = [
            f"{name}={value} instead of {others[name]}" for name, value in rules.items() if value != others[name]
        ]
        if changed:
            return f"is evaluated with {' and '.join(changed)}"
        own, data = ((result.found.get("data") or {}).get("val") for result in (self, other))
        if own and data and not same_data(own, data):
            return f"is validated on other data, with {own['boxes']:,} boxes instead of {data['boxes']:,}"
        return "" if np.array_equal(self.image_ids(), other.image_ids()) else "is validated on other images"

    @property
    def max_detections(self) -> int | None:
        """The limit of detections of the evaluation; None for the default."""
        limit: int | None = self.run.config["model"].get("eval_max_detections")
        return limit

    def image_ids(self) -> Array:
        """Return the ids of the evaluated images, ascending."""
        with np.load(self.folder / ROWS) as rows:
            return np.sort(rows["image_ids"])


@dataclass(frozen=True)
class CommittedResult(Result):
    """A result from a committed file; ``folder`` keeps its resamples.

    Args:
        arrays: The file of its detections and tables.
    """

    arrays: Path = Path()

    @classmethod
    def of(cls, committed: Committed, out: Path) -> "CommittedResult":
        """Return the result of a file, whose resamples are kept in the folder of the report."""
        found = {**committed.found, "data": committed.data}
        return cls(committed.run, out / JOINED, "finished", found, arrays=committed.arrays)

    @cached_property
    def tables(self) -> Evaluation:
        """The evaluation's arrays."""
        return load_tables(self.arrays, self.numbers)

    @property
    def _resampled(self) -> Path:
        return self.folder / f"{self.run.name}-seed-{self.run.seed}.npz"

    def _evaluated(self) -> int:
        return int.from_bytes(hashlib.sha256(self.arrays.read_bytes()).digest()[:7], "big")

    def rows(self) -> DetectionTable:
        """Return the kept detections and all objects of the validation images."""
        return load_compact(self.arrays)

    def image_ids(self) -> Array:
        """Return the ids of the evaluated images, ascending."""
        return np.sort(load_image_ids(self.arrays))


@dataclass(frozen=True)
class Comparison:
    """All runs of a comparison.

    Args:
        folder: The comparison's folder.
        names: Names of the configurations, in the order of the command.
        baseline: Name of the configuration that the others are compared with.
        shared: The common configuration.
        results: The runs by name and seed.
        notes: Sentences about the origin of the results.
    """

    folder: Path
    names: list[str]
    baseline: str
    shared: dict[str, Any]
    results: dict[str, dict[int, Result]]
    notes: Sequence[str] = ()

    @property
    def protocol(self) -> Protocol:
        """The rules of the evaluation."""
        protocol: Protocol = self.shared["model"].get("eval_protocol", "coco")
        return protocol

    def finished(self, name: str) -> dict[int, Result]:
        """Return the finished runs of a configuration, by seed."""
        return {seed: result for seed, result in self.results[name].items() if result.state == "finished"}

    @property
    def shown(self) -> list[str]:
        """The configurations with a finished run."""
        return [name for name in self.names if self.finished(name)]

    @property
    def unfinished(self) -> list[Result]:
        """The runs without results."""
        return [r for seeds in self.results.values() for r in seeds.values() if r.state != "finished"]

    def spread(self, name: str, number: str) -> Spread | None:
        """Return a number over the seeds; None if no seed has it."""
        values = [r.numbers.get(number, -1.0) for r in self.finished(name).values()]
        known = tuple(value for value in values if value > -1)
        return Spread(known) if known else None

    @cached_property
    def unlike(self) -> dict[str, str]:
        """Why configurations cannot be compared with the baseline, by name: other data or rules of evaluation."""
        bases = self.finished(self.baseline)
        if not bases:
            return {}
        first = next(iter(bases.values()))
        reasons = {
            name: [result.unlike(bases.get(seed, first)) for seed, result in self.finished(name).items()]
            for name in self.shown
            if name != self.baseline
        }
        return {name: next(filter(None, some)) for name, some in reasons.items() if any(some)}

    @cached_property
    def samples(self) -> dict[str, dict[int, dict[Number, Array]]]:
        """Resampled AP by name and seed, of the configurations that can be compared with the baseline.

        Empty with LVIS's protocol, because the resampling supports only COCO's.
        """
        known = [name for name in self.shown if name not in self.unlike] if self.protocol == "coco" else []
        return {
            name: {seed: r.resampled() for seed, r in self.finished(name).items()} if name in known else {}
            for name in self.names
        }

    def difference(self, name: str, number: Number = "map") -> Difference | None:
        """Return a configuration minus the baseline; None if they have no finished seed with this number in common."""
        run, base = (
            {seed: value for seed, result in self.finished(n).items() if (value := result.numbers[number]) > -1}
            for n in (name, self.baseline)
        )
        samples, base_samples = (
            {seed: arrays[number] for seed, arrays in self.samples[n].items()} for n in (name, self.baseline)
        )
        return compare(run, base, samples, base_samples)


def read(
    out: Path, baseline: str | None = None, joined: Sequence[Committed] = (), notes: Sequence[str] = ()
) -> Comparison:
    """Read a comparison's folder without training.

    Args:
        out: The folder.
        baseline: Replaces the recorded baseline.
        joined: Results of other folders to add; the folder may then have no runs of its own.
        notes: Sentences about the origin of the results.

    Raises:
        UsageError: If there is no run with the name of the baseline, or no baseline.
    """
    record = read_record(out) or {"names": [], "baseline": None}
    others = sorted({result.name for result in joined} - set(record["names"]))
    names = [*record["names"], *others]
    baseline = check_baseline(baseline, names) or record["baseline"]
    if baseline is None:
        raise UsageError(f"--results: give --baseline, one of {', '.join(names)}.")
    if not record["names"]:
        names = [baseline, *(name for name in names if name != baseline)]
    results: dict[str, dict[int, Result]] = {name: {r.run.seed: r for r in _read_seeds(out / name)} for name in names}
    for result in joined:
        seeds = results[result.name]
        if result.seed not in seeds or seeds[result.seed].state != "finished":
            results[result.name] = dict(sorted({**seeds, result.seed: CommittedResult.of(result, out)}.items()))
    shared = record["shared"] if "shared" in record else joined[0].shared
    return Comparison(out, names, baseline, shared, results, tuple(notes))


def _read_seeds(folder: Path) -> list[Result]:
    runs = [(Run.load(path.parent), path.parent) for path in folder.glob(f"seed-*/{RUN}")]
    return [_read_result(run, place) for run, place in sorted(runs, key=lambda pair: pair[0].seed)]


def _read_result(run: Run, folder: Path) -> Result:
    if (folder / RESULT).exists():
        return Result(run, folder, "finished", json.loads((folder / RESULT).read_text()))
    if (folder / FAILURE).exists():
        return Result(run, folder, "failed", failure=(folder / FAILURE).read_text())
    return Result(run, folder, "stopped" if (folder / CHECKPOINT).exists() else "not begun")
