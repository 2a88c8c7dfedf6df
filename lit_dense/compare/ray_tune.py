"""Runs as trials of Ray Tune, on a cluster or on this machine: https://docs.ray.io/en/latest/tune/index.html."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import UsageError
from . import worker
from .files import FAILURE, RESULT, STDERR, STDOUT
from .local import failure_of, say_end
from .plan import Run
from .worker import WATCH

LOCAL = "local"


def train_on_ray(runs: Sequence[Run], out: Path, address: str, jobs: int | None) -> list[Run]:
    """Train the runs that are not finished as trials, each with its share of the cluster.

    Args:
        runs: All runs, in order.
        out: Folder of the comparison, which every machine of the cluster sees under this path.
        address: The cluster's, ``auto`` for the one around, ``local`` for one on this machine.
        jobs: Runs at once; by default as many as there are GPUs, or else machines.

    Returns:
        The runs that failed.

    Raises:
        UsageError: If Ray Tune is not installed or there is no cluster.
    """
    try:
        import ray
        from ray import tune
    except ModuleNotFoundError as error:
        raise UsageError(f'--ray needs Ray Tune: pip install "lit-dense[ray]" ({error})') from error
    waiting = [run for run in runs if not (run.folder(out) / RESULT).exists()]
    if not waiting:
        return []
    if address == LOCAL:  # Ray's own would be 15, where anything else on the machine goes first
        os.environ.setdefault("RAY_worker_niceness", "0")
    try:
        ray.init(address=address, include_dashboard=False if address == LOCAL else None, log_to_driver=False)
    except ConnectionError as error:
        raise UsageError(f"--ray: there is no cluster at {address!r} ({error}); 'local' makes one here.") from error
    try:
        described = [
            {"folder": str(run.folder(out).resolve()), "working_folder": run.working_folder} for run in waiting
        ]
        for run in waiting:
            (run.folder(out) / FAILURE).unlink(missing_ok=True)
        tune.Tuner(
            tune.with_resources(_make_trial(), _share(ray.cluster_resources(), len(ray.nodes()), jobs)),
            param_space={"run": tune.grid_search(described)},
            run_config=_run_config(tune, out),
        ).fit()
    finally:
        ray.shutdown()
    how = "without a result, or Ray never began it"
    return [run for run in waiting if say_end(run, failure_of(run.folder(out), how))]


def _make_trial() -> Callable[[Mapping[str, Any]], dict[str, int]]:
    """What Ray calls for each run: it starts the run's own process, which ends when Ray ends this one.

    A function inside of one, for Ray sends these by value: its process then need not import torch a second time.
    """
    module, watch, stdout, stderr = worker.__name__, WATCH, STDOUT, STDERR

    def trial(config: Mapping[str, Any]) -> dict[str, int]:
        import os
        import subprocess
        import sys

        folder = config["run"]["folder"]
        with open(f"{folder}/{stdout}", "a") as out, open(f"{folder}/{stderr}", "w") as err:  # noqa: PTH123 (no import)
            process = subprocess.Popen(
                [sys.executable, "-m", module, folder, watch],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
                cwd=config["run"]["working_folder"],
            )
            if status := process.wait():
                raise RuntimeError(f"ended with status {status}: see {folder}/{stderr}")
        return {"status": status}

    return trial


def _share(resources: Mapping[str, float], machines: int, jobs: int | None) -> dict[str, float]:
    """What each trial takes of the cluster: a GPU where there are any, and its part of the cores."""
    cores, gpus = int(resources.get("CPU", 1)), int(resources.get("GPU", 0))
    at_once = jobs or gpus or machines
    share: dict[str, float] = {"cpu": max(1, cores // at_once)}
    if gpus:
        share["gpu"] = min(1.0, gpus / at_once)
    return share


def _run_config(tune: Any, out: Path) -> Any:
    """Where Tune keeps its own records; the class moved in Ray 2.43."""
    options: dict[str, Any] = {"name": "tune", "storage_path": str((out / ".ray").resolve()), "verbose": 1}
    if hasattr(tune, "RunConfig"):
        return tune.RunConfig(**options)
    from ray import train

    return train.RunConfig(**options)
