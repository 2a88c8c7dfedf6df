"""The files of a comparison: their names, and functions that write and read them."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UsageError
from ..metrics.detection_table import Array
from ..metrics.evaluation import Evaluation

RECORD = "compare.json"
"""A file in the folder of the comparison: the names of the runs, the baseline and the common configuration."""

RESULTS = "results"
"""A folder in it: the results in files that are small enough for a repository."""

JOINED = ".joined"
"""A folder in it: resamples of joined results."""

RUN, CONFIG, CHECKPOINT, RESULT = "run.json", "config.json", "last.ckpt", "result.json"
ROWS, TABLES, RESAMPLED = "evaluation.npz", "tables.npz", "resampled.npz"
STDOUT, STDERR = "stdout.txt", "stderr.txt"
FAILURE = "failure.txt"
"""Files in the folder of a run: its description, configuration, checkpoint, results, output and failure."""

_ARRAYS = ("ap", "ap_50", "precision_50", "scores_50", "confusion")


def write_json(path: Path, value: Any) -> None:
    """Write a file atomically."""
    write_text(path, json.dumps(value, indent=1))


def write_text(path: Path, text: str) -> None:
    """Write a file atomically."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def read_record(out: Path) -> dict[str, Any] | None:
    """Read the names, the baseline and the common configuration of a comparison; None if the folder has none.

    Raises:
        UsageError: If the file is damaged or not that of a comparison.
    """
    path = out / RECORD
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is damaged: {error}. Remove it, or use another --out.") from error
    if not isinstance(record, dict) or not {"names", "baseline", "shared"} <= record.keys():
        raise UsageError(f"{path} is not the record of a comparison. Use another --out.")
    return record


def last_lines(path: Path, number: int = 15) -> str:
    """Return the last lines of a run's output, without empty lines."""
    lines: Iterable[str] = path.read_text(errors="replace").splitlines() if path.exists() else []
    return "\n".join([line.rstrip() for line in lines if line.strip()][-number:])


def write_arrays(path: Path, arrays: dict[str, Array]) -> None:
    """Write an ``npz`` file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    np.savez_compressed(partial, allow_pickle=False, **arrays)
    partial.replace(path)


def save_tables(path: Path, evaluation: Evaluation) -> None:
    """Write an evaluation's arrays; its rows are in a separate file, its numbers in the result."""
    arrays = {name: getattr(evaluation, name) for name in _ARRAYS}
    names, score = np.array(evaluation.class_names), np.array(evaluation.confusion_score)
    write_arrays(path, {"class_names": names, "confusion_score": score, **arrays})


def load_tables(path: Path, numbers: dict[str, float]) -> Evaluation:
    """Read a file of ``save_tables`` as an evaluation without rows."""
    with np.load(path, allow_pickle=False) as arrays:
        return Evaluation(
            class_names=tuple(str(name) for name in arrays["class_names"]),
            numbers=numbers,
            confusion_score=float(arrays["confusion_score"]),
            **{name: arrays[name] for name in _ARRAYS},
        )
