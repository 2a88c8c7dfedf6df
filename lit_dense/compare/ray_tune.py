"""Training of runs as trials of Ray Tune, on a cluster or locally: https://docs.ray.io/en/latest/tune/index.html."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import UsageError
from . import worker
from .files import FAILURE, RESULT, STDERR, STDOUT
from .local_processes import failure_of, say_end
from .plan import Run
from .worker import WATCH

LOCAL = "local"


def train_on_ray(runs: Sequence[Run], out: Path, address: str, jobs: int | None) -> list[Run]:
    """Train the unfinished runs as trials, each with its share of the cluster.

    Args:
        runs: All runs, in order.
        out: Folder of the comparison, available under this path on every machine of the cluster.
        address: Address of the cluster, ``auto`` for the current one, ``local`` for a new one on this machine.
        jobs: Number of concurrent runs; by default the number of GPUs, or else of machines.

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
    if address == LOCAL:  # Ray's default is 15, which gives priority to all other processes of the machine
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
    how = "without a result, or Ray never started it"
    return [run for run in waiting if say_end(run, failure_of(run.folder(out), how))]


def _make_trial() -> Callable[[Mapping[str, Any]], dict[str, int]]:
    """Return the function that Ray calls for each run; it starts the run's process, which ends together with it.

    Ray sends nested functions by value, so Ray's process does not need to import torch.
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
    """Return the resources of each trial: a GPU if there are any, and its share of the cores."""
    cores, gpus = int(resources.get("CPU", 1)), int(resources.get("GPU", 0))
    at_once = jobs or gpus or machines
    share: dict[str, float] = {"cpu": max(1, cores // at_once)}
    if gpus:
        share["gpu"] = min(1.0, gpus / at_once)
    return share


def _run_config(tune: Any, out: Path) -> Any:
    """Return the configuration with the folder of Tune's records; the class was moved in Ray 2.43."""
    options: dict[str, Any] = {"name": "tune", "storage_path": str((out / ".ray").resolve()), "verbose": 1}
    if hasattr(tune, "RunConfig"):
        return tune.RunConfig(**options)
    from ray import train

    return train.RunConfig(**options)
