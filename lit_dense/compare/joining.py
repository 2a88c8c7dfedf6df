"""Joining of results of several machines and days: what may be joined, and which runs are missing."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._moved import NAMES
from ..core.errors import UsageError
from ..data.joined import FILES
from .committed import Committed, changes_of, portable
from .configuration import differences
from .plan import Run
from .provenance import NOT_RECORDED, READ_BY, read_fingerprints, same_data, versions

DECISIVE = ("lit-dense", "code", "torch", "torchvision")
"""Versions that must be equal."""
MINOR = ("python", "lightning", "numpy")
"""Versions whose differences are only reported."""
NOT_COMPARED = {
    "data": (
        *("root", "train_images", "train_annotations", "val_images", "val_annotations", "test_images"),
        *("test_annotations", "predict", "background_images", "num_workers", "pin_memory", "cache", "cache_gib"),
    ),
    "trainer": ("default_root_dir", "logger"),
}
"""Options that may differ: where files are, which the fingerprint of the data replaces, and how fast they are read."""
WITHOUT_INFLUENCE = ("ModelCheckpoint", "DetectionPlots", "EvaluationPlots", "LossPlots", "WeightPlots")
"""Callbacks that may differ."""
ANY_SEED = ("seed_everything", "seed")
SPLITS = {"train": "training set", "val": "validation set"}


def join(results: Sequence[Committed], mix_versions: bool = False) -> tuple[list[Committed], list[str]]:
    """Check that results belong together; return each run once, and sentences for the report.

    Args:
        results: The results, also with planned runs: those have no numbers.
        mix_versions: Whether different versions are only reported.

    Raises:
        UsageError: If they differ in the common configuration, in the configuration of runs of one name, in versions or
            in data, or if two machines trained the same run.
    """
    if not results:
        return [], []
    first = results[0]
    for other in results[1:]:
        _refuse(first.shared, other.shared, first, other, "the common configuration")
    by_name: dict[str, Committed] = {}
    for result in results:
        before = by_name.setdefault(result.name, result)
        _refuse(before.config, result.config, before, result, f"run {result.name!r}", ANY_SEED)
    notes = [*_check_data(results), *version_notes(results, mix_versions)]
    if set(_values(results, "code")) == {NOT_RECORDED}:
        notes.append("The code of the runs is not recorded, because they are of an earlier version: it may differ.")
    return _once(results), notes


def _once(results: Sequence[Committed]) -> list[Committed]:
    """Return one result of each run.

    Raises:
        UsageError: If a run has two results with different numbers.
    """
    kept: dict[tuple[str, int], Committed] = {}
    for result in results:
        if not (numbers := result.found.get("numbers")):
            continue
        before = kept.setdefault((result.name, result.seed), result)
        if before.found["numbers"] != numbers:
            both = " and ".join(f"{one.path} (AP {one.found['numbers']['map']:.4f})" for one in (before, result))
            raise UsageError(f"--results: {result.name}, seed {result.seed} has two results: {both}. Remove one.")
    return list(kept.values())


def _refuse(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    before: Committed,
    now: Committed,
    what: str,
    ignored: Sequence[str] = (),
) -> None:
    """Raise an error if two configurations differ in an option that both have and that can change numbers."""
    first, second = comparable(old, ignored), comparable(new, ignored)
    found = differences(_common(first, second), _common(second, first))
    if found:
        more = f"\n  ... and {len(found) - 10} more" if len(found) > 10 else ""
        raise UsageError(
            f"--results: {what} differs between {before.path} (before) and {now.path} (now):\n  "
            + "\n  ".join(found[:10])
            + f"{more}\nJoin only results of one configuration, or name the runs differently."
        )


def comparable(config: Mapping[str, Any], ignored: Sequence[str] = ()) -> dict[str, Any]:
    """Return a configuration without options that may differ between machines.

    Args:
        config: The configuration.
        ignored: Further options to leave out, at the top and in the section ``data``.
    """
    kept: dict[str, Any] = {}
    for name, value in config.items():
        if name in ignored or name == "predictions":
            continue
        if name in NOT_COMPARED and isinstance(value, Mapping):
            left_out = (*NOT_COMPARED[name], *(ignored if name == "data" else ()))
            value = {key: inner for key, inner in value.items() if key not in left_out}
            if value.get("join"):
                value["join"] = [
                    {k: v for k, v in source.items() if k not in (*FILES, "root")} for source in value["join"]
                ]
            if value.get("callbacks"):
                value["callbacks"] = _influential(value["callbacks"])
        kept[name] = value
    return kept


def _influential(callbacks: Any) -> Any:
    """Return the callbacks that may change numbers; None without any."""
    listed = callbacks if isinstance(callbacks, list) else [callbacks]
    return [one for one in listed if _name(one) not in WITHOUT_INFLUENCE] or None


def _name(callback: Any) -> str:
    """Return the name of a callback's class, the present one if it was renamed."""
    path = callback["class_path"] if isinstance(callback, Mapping) else callback
    name = str(path).rpartition(".")[2]
    return NAMES.get(name, name)


def _common(config: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that another configuration has too: a version may have more options than another."""
    kept = {name: value for name, value in config.items() if name in other}
    for name in ("model", "data", "trainer"):
        if isinstance(kept.get(name), Mapping) and isinstance(other[name], Mapping):
            kept[name] = {key: value for key, value in kept[name].items() if key in other[name]}
    return kept


def version_notes(results: Sequence[Committed], mix_versions: bool) -> list[str]:
    """Return sentences about the versions of results.

    Args:
        results: The results.
        mix_versions: Whether different decisive versions are reported instead of refused.

    Raises:
        UsageError: If decisive versions differ and are not to be mixed.
    """
    differing = {fact: values for fact in DECISIVE if len(values := _values(results, fact)) > 1}
    said = "; ".join(f"{fact} {_by_value(values)}" for fact, values in differing.items())
    if differing and not mix_versions:
        raise UsageError(
            f"--results: results of different versions are not joined: {said}. A difference of versions can be a "
            "difference of numbers. Train again with one version, or give --mix-versions; the report then says so."
        )
    notes = []
    if differing:
        notes.append(f"Results of different versions are joined, so a difference can come from the version: {said}.")
    minor = {fact: values for fact in MINOR if len(values := _values(results, fact)) > 1}
    return [*notes, *(f"The runs differ in the version of {f}: {_by_value(values)}." for f, values in minor.items())]


def _values(results: Iterable[Committed], fact: str) -> dict[str, list[str]]:
    """Return the runs of each version; versions of torch for different devices are equal."""
    found: dict[str, list[str]] = {}
    for result in results:
        value = str(result.found["versions"].get(fact, NOT_RECORDED))
        found.setdefault(value if fact == "code" else value.partition("+")[0], []).append(_label(result))
    return found


def _label(result: Committed) -> str:
    return f"{result.name} seed {result.seed}"


def _by_value(values: Mapping[str, Sequence[str]]) -> str:
    def runs(names: Sequence[str]) -> str:
        shown = list(dict.fromkeys(names))
        return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")

    return ", ".join(f"{value} ({runs(names)})" for value, names in values.items())


def _check_data(results: Sequence[Committed]) -> list[str]:
    """Check that runs of the same data options have the same data; return sentences about image files.

    Raises:
        UsageError: If they have not, or if the data of a result is not recorded.
    """
    notes: list[str] = []
    seen: dict[str | None, Committed] = {}  # the first result of each data: None for the common data, else the name
    for result in results:
        if result.data is None:
            raise UsageError(
                f"--results: the data of {result.path} is not recorded, because its run is of an earlier version. "
                "Repeat lit-dense compare --out with the folder of the run, on the machine that has its data and the "
                "detections: this records the data."
            )
        before = seen.setdefault(_data_key(result), result)
        for split, name in SPLITS.items():
            notes += _compare_data(before, result, split, name)
    return notes


def _compare_data(before: Committed, now: Committed, split: str, name: str) -> list[str]:
    one, other = ((result.data or {}).get(split, {}) for result in (before, now))
    if not same_data(one, other):
        raise UsageError(
            f"--results: results of different data are not joined: the {name} of {before.path} has {_described(one)}, "
            f"that of {now.path} {_described(other)}. Train them on the same data, or report them separately."
        )
    if one.get("image_bytes") == other.get("image_bytes"):
        return []
    return [
        f"The image files of the {name} differ in size between {_label(before)} and {_label(now)}: the images may have "
        "been encoded again."
    ]


def data_notes(results: Sequence[Committed]) -> list[str]:
    """Return a sentence for each data set that changed between runs of the same data options.

    Args:
        results: Results of one folder, whose report is not refused; without recorded data they are not compared.
    """
    notes = []
    for split, name in SPLITS.items():
        groups: dict[str | None, dict[str, list[str]]] = {}
        for result in results:
            if result.data is not None:
                values = groups.setdefault(_data_key(result), {})
                values.setdefault(_described(result.data.get(split, {})), []).append(_label(result))
        notes += [
            f"The {name} changed between runs: {_by_value(values)}. A difference can come from the data."
            for values in groups.values()
            if len(values) > 1
        ]
    return notes


def _data_key(result: Committed) -> str | None:
    """Return the name of a run with data options of its own, None for the common data."""
    own = {name for name in result.changes.get("data", {}) if name in READ_BY} - {"seed"}
    return result.name if own else None


def _described(data: Mapping[str, Any]) -> str:
    if not data:
        return "no images"
    return f"{data['images']:,} images and {data['boxes']:,} boxes (digest {data['digest']})"


def missing(
    runs: Sequence[Run], shared: Mapping[str, Any], results: Sequence[Committed], mix_versions: bool = False
) -> list[Run]:
    """Return the planned runs that have no result, after checking that their results can be joined.

    Args:
        runs: The planned runs.
        shared: Their common configuration.
        results: The existing results.
        mix_versions: Whether results of different versions may be joined.

    Raises:
        UsageError: As :func:`join`.
    """
    known = {(result.name, result.seed): result for result in results}
    read = _reader()
    planned = []
    for run in runs:
        before = known.get((run.name, run.seed))
        common = portable(dict(shared), run.working_folder)
        changes = changes_of(common, portable(run.config, run.working_folder))
        data = before.data if before else read(run)
        found = {"versions": before.found["versions"] if before else versions()}
        planned.append(Committed(Path("this command"), run.name, run.seed, run.words, common, changes, found, data, {}))
    join([*results, *planned], mix_versions)
    return [run for run in runs if (run.name, run.seed) not in known]


def _reader() -> Callable[[Run], dict[str, Any]]:
    """Return a function that reads the fingerprints of a run's data, each data set once."""
    kept: dict[str, dict[str, Any]] = {}

    def read(run: Run) -> dict[str, Any]:
        options = {name: value for name, value in run.config["data"].items() if name in READ_BY}
        if not options.get("val_split"):
            options.pop("seed", None)  # decides only the split
        key = json.dumps([options, run.working_folder], sort_keys=True)
        if key not in kept:
            kept[key] = read_fingerprints(options, run.working_folder, prepare=True)
        return kept[key]

    return read
