"""Results in files that are small enough for a repository: for each run ``RUN-seed-N.json`` and ``RUN-seed-N.npz``.

The first holds the numbers, the configuration and where the numbers come from. The second holds the curves of precision
and recall, the confusion matrix, and the detections in a compact form. Both contain no path of the machine.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from ..core.errors import UsageError
from ..metrics.arguments import read_limits
from ..metrics.backends import Protocol
from ..metrics.compact_table import load_compact, save_compact
from ..metrics.detection_table import DetectionTable
from ..metrics.evaluation import evaluate
from .files import RECORD, RESULT, RESULTS, ROWS, TABLES, read_record, write_text
from .plan import Run
from .provenance import read_fingerprints

FORMAT = 1
TOLERANCE = 0.0005
"""Largest difference of AP and AP50 between the kept detections and all."""
KEPT = (50, 75, 100, 150, 200, 300)
"""Numbers of detections of an image to keep; the smallest within the tolerance is chosen."""
SHORTENED = "..."
"""Stands for a folder of the machine."""

_EMBEDDED = re.compile(r"""(?<![^\s=:\[{,"'])(?:[A-Za-z]:[\\/]|/(?!/))[^\s=,"'\]}]+""")  # not in https://...


@dataclass(frozen=True)
class Committed:
    """A result that was read from its file.

    Args:
        path: The JSON file.
        name: Name of the configuration.
        seed: The seed.
        words: The arguments of ``lit-dense fit``, without folders of the machine.
        shared: The common configuration of the comparison.
        changes: The options of the run that differ from it.
        found: The content of the worker's result file.
        data: Fingerprints of training and validation set; None if they are not known.
        kept: The number of detections of each image in the array file, and their ``map`` and ``map_50``.
    """

    path: Path
    name: str
    seed: int
    words: list[str]
    shared: dict[str, Any]
    changes: dict[str, Any]
    found: dict[str, Any]
    data: dict[str, Any] | None
    kept: dict[str, Any]

    @property
    def arrays(self) -> Path:
        """The file of the detections and the tables."""
        return self.path.with_suffix(".npz")

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the run."""
        shared = {name: value for name, value in self.shared.items() if name != "validations"}
        return {name: _laid_over(shared.get(name), self.changes.get(name)) for name in {**shared, **self.changes}}

    @property
    def run(self) -> Run:
        """The run; its working folder is not known."""
        return Run(self.name, self.seed, self.words, self.config, "")

    @classmethod
    def load(cls, path: Path) -> "Committed":
        """Read a file.

        Raises:
            UsageError: If it is no result, one of a later version, or its array file is missing.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found = {name: value for name, value in content.items() if name != "format"}
            result = cls(path=path, **found) if content["format"] == FORMAT else None
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path} is not a result of lit-dense compare ({type(error).__name__}: {error})."
            ) from error
        if result is None:
            raise UsageError(f"{path} has format {content['format']!r}; this version reads format {FORMAT}.")
        if not result.arrays.is_file():
            raise UsageError(f"{result.arrays} is missing; it belongs to {path.name}.")
        return result


def _laid_over(shared: Any, changes: Any) -> Any:
    if isinstance(shared, Mapping) and isinstance(changes, Mapping):
        return {**shared, **changes}
    return shared if changes is None else changes


def changes_of(shared: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a configuration that differ from the common configuration."""
    changes: dict[str, Any] = {}
    for name, value in config.items():
        common = shared.get(name)
        if isinstance(value, Mapping) and isinstance(common, Mapping):
            value = {key: own for key, own in value.items() if key not in common or common[key] != own}
            if value:
                changes[name] = value
        elif name not in shared or common != value:
            changes[name] = value
    return changes


def load_folders(folders: Iterable[Path]) -> list[Committed]:
    """Read the results of folders, sorted by name and seed.

    Raises:
        UsageError: If a folder does not exist or has no results, or a file cannot be read.
    """
    results: list[Committed] = []
    for folder in folders:
        paths = sorted(folder.glob("*.json"))
        inside = folder / RESULTS
        if not paths or ((folder / RECORD).is_file() and inside.is_dir()):  # the folder of a comparison
            hint = f" Did you mean {inside}?" if inside.is_dir() else ""
            what = "has no results of runs (*.json)" if folder.is_dir() else "is not a folder"
            raise UsageError(f"--results: {folder} {what}.{hint}")
        results += map(Committed.load, paths)
    return sorted(results, key=lambda result: (result.name, result.seed))


def export(folder: Path, data: dict[str, Any] | None = None) -> Path:
    """Write the committed files of a finished run into the folder ``results`` of its comparison.

    Files that are up to date stay as they are.

    Args:
        folder: The folder of the run.
        data: Fingerprints of the data, for results without them.

    Returns:
        The JSON file.
    """
    run, out = Run.load(folder), folder.parents[1]
    found = json.loads((folder / RESULT).read_text())
    data = found.pop("data", None) or data
    path = out / RESULTS / f"{run.name}-seed-{run.seed}.json"
    if path.is_file() and path.with_suffix(".npz").is_file():
        before = Committed.load(path)
        if before.found == found and (before.data or not data):
            return path
    record = read_record(out)
    assert record is not None  # the run was planned into it
    shared = portable(record["shared"], run.working_folder)
    config = portable(run.config, run.working_folder)
    path.parent.mkdir(exist_ok=True)
    kept = _save_arrays(path.with_suffix(".npz"), folder, run, found["numbers"])
    words = portable(run.words, run.working_folder)
    changes = changes_of(shared, config)
    content = Committed(path, run.name, run.seed, words, shared, changes, found, data, kept)
    fields = {"format": FORMAT, **{name: value for name, value in asdict(content).items() if name != "path"}}
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in fields.items()]
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")  # one line for each field: short, and readable as a diff
    return path


def export_all(out: Path) -> list[str]:
    """Write the committed files of all finished runs of a comparison.

    Returns:
        A sentence about each kind of run whose data could not be read to record its fingerprint.
    """
    unknown: dict[str, list[str]] = {}
    read: dict[str, dict[str, Any] | str] = {}
    for result in sorted(out.glob(f"*/seed-*/{RESULT}")):
        folder, data = result.parent, None
        if "data" not in json.loads(result.read_text()) and not _has_data(folder):
            run = Run.load(folder)
            key = json.dumps([run.config.get("data"), run.working_folder], sort_keys=True)
            if key not in read:
                read[key] = _read(run)
            known = read[key]
            if isinstance(known, str):
                unknown.setdefault(known, []).append(f"{run.name}, seed {run.seed}")
            else:
                data = known
        export(folder, data)
    return [f"The data of {'; '.join(runs)} is not recorded: {why}" for why, runs in unknown.items()]


def _has_data(folder: Path) -> bool:
    run = Run.load(folder)
    path = folder.parents[1] / RESULTS / f"{run.name}-seed-{run.seed}.json"
    return path.is_file() and Committed.load(path).data is not None


def _read(run: Run) -> dict[str, Any] | str:
    try:
        return read_fingerprints(run.config.get("data", {}), run.working_folder) or "it names no data."
    except UsageError as error:
        return str(error)


def _save_arrays(path: Path, folder: Path, run: Run, numbers: Mapping[str, float]) -> dict[str, Any]:
    """Write the array file with as many detections as keep AP; returns what it keeps."""
    rows = DetectionTable.load(folder / ROWS)
    with np.load(folder / TABLES, allow_pickle=False) as tables:
        others = dict(tables)
    model = run.config["model"]
    protocol: Protocol = model.get("eval_protocol") or "coco"
    limits = read_limits(model.get("eval_max_detections"), protocol)
    classes = dict(enumerate(map(str, others["class_names"])))
    partial = path.with_name(f".{path.name}")
    for number in (*KEPT, None):
        save_compact(partial, rows if number is None else rows.best_of_images(number), **others)
        found = evaluate(load_compact(partial), classes, protocol, limits).numbers
        if number is None or all(abs(found[name] - numbers[name]) <= TOLERANCE for name in ("map", "map_50")):
            break
    partial.replace(path)
    return {"detections_per_image": number, "map": found["map"], "map_50": found["map_50"]}


def portable(value: Any, working_folder: str) -> Any:
    """Return plain data without folders of the machine.

    Paths inside the working folder become relative to it. Of other absolute paths, ``.../`` and the last part remain.

    Args:
        value: Plain data.
        working_folder: The folder that relative paths belong to.
    """
    if isinstance(value, Mapping):
        return {name: portable(inner, working_folder) for name, inner in value.items()}
    if isinstance(value, list):
        return [portable(inner, working_folder) for inner in value]
    if not isinstance(value, str):
        return value
    option, equals, path = value.partition("=")
    if equals and _absolute(path):
        return f"{option}={_shortened(path, working_folder)}"
    if _absolute(value):
        return _shortened(value, working_folder)
    return _EMBEDDED.sub(lambda match: _shortened(match.group(), working_folder), value)


def _absolute(path: str) -> PurePath | None:
    """Return a path of this or another system if it is absolute."""
    return next((kind(path) for kind in (PurePosixPath, PureWindowsPath) if kind(path).is_absolute()), None)


def _shortened(path: str, working_folder: str) -> str:
    absolute = _absolute(path)
    if absolute is None:
        return path
    folder = type(absolute)(working_folder)
    if folder.is_absolute() and absolute.is_relative_to(folder):
        return absolute.relative_to(folder).as_posix()
    return f"{SHORTENED}/{absolute.name}"
