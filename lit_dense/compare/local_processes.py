"""Training of runs in processes on this machine."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..core.errors import UsageError
from .files import CHECKPOINT, FAILURE, RESULT, STDERR, STDOUT, last_lines, write_text
from .plan import Run
from .worker import WATCH

POLL_SECONDS = 0.2
GRACE_SECONDS = 10.0


class Worker:
    """The process that trains one run; it ends together with this process.

    Args:
        folder: The run's folder.
        environment: Environment variables of the process.
        working_folder: Working directory of the process.
    """

    def __init__(self, folder: Path, environment: dict[str, str], working_folder: str) -> None:
        self.folder = folder.resolve()
        (self.folder / FAILURE).unlink(missing_ok=True)
        with (self.folder / STDOUT).open("a") as out, (self.folder / STDERR).open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lit_dense.compare.worker", str(self.folder), WATCH],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env=environment,
                cwd=working_folder,
                start_new_session=True,  # only this process receives Ctrl-C; it stops the others
            )

    @property
    def done(self) -> bool:
        """True if the process has ended."""
        return self.process.poll() is not None

    def settle(self) -> str | None:
        """Wait for the end of the process; returns the failure message, which is also saved, or None."""
        status = self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()
        return failure_of(self.folder, f"with status {status}")

    def stop(self) -> None:
        """Stop the process; its last checkpoint is kept."""
        self.process.terminate()
        try:
            self.process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def failure_of(folder: Path, how: str) -> str | None:
    """Return and save the failure message of a run that has ended; None if it is finished.

    Args:
        folder: The run's folder.
        how: Description of the end, such as the exit status.
    """
    if (folder / RESULT).exists():
        return None
    failure = f"ended {how}\n{last_lines(folder / STDERR) or 'There is no error output.'}"
    write_text(folder / FAILURE, failure)
    return failure


def environment(jobs: int, slot: int) -> dict[str, str]:
    """Return the environment of one of several concurrent processes: its share of the threads, and one GPU.

    Args:
        jobs: Number of concurrent processes.
        slot: Index of this process, from 0.
    """
    variables = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    if jobs > 1:
        variables.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
        if gpus := _gpus():
            variables["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    return variables


def _gpus() -> list[str]:
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [gpu for gpu in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if gpu]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def train_here(runs: Sequence[Run], out: Path, jobs: int) -> list[Run]:
    """Train the unfinished runs, several at a time; an interruption stops all of them.

    Args:
        runs: All runs, in order.
        out: Folder of the comparison.
        jobs: Number of concurrent processes.

    Returns:
        The runs that failed.
    """
    waiting, failed = [run for run in runs if not (run.folder(out) / RESULT).exists()], []
    running: dict[int, tuple[Run, Worker, float]] = {}
    try:
        while waiting or running:
            for slot in range(jobs):
                if waiting and slot not in running:
                    run = waiting.pop(0)
                    say_start(run, out)
                    worker = Worker(run.folder(out), environment(jobs, slot), run.working_folder)
                    running[slot] = (run, worker, time.monotonic())
            for slot, (run, worker, began) in list(running.items()):
                if worker.done:
                    del running[slot]
                    if say_end(run, worker.settle(), f" in {time.monotonic() - began:.0f} s"):
                        failed.append(run)
            time.sleep(POLL_SECONDS)
    finally:
        for _, worker, _ in running.values():
            worker.stop()
    return failed


def say_start(run: Run, out: Path) -> None:
    """Print one line about a run that starts."""
    action = "resumed" if (run.folder(out) / CHECKPOINT).exists() else "started"
    print(f"{run.name}, seed {run.seed}: {action}", flush=True)


def say_end(run: Run, failure: str | None, duration: str = "") -> bool:
    """Print that a run is finished, or its failure message; returns whether it failed."""
    if failure is None:
        print(f"{run.name}, seed {run.seed}: finished{duration}", flush=True)
        return False
    print(f"{run.name}, seed {run.seed}: failed, {failure}", file=sys.stderr, flush=True)
    return True


@contextlib.contextmanager
def alone(out: Path) -> Iterator[None]:
    """Lock a folder against other commands, if the system supports file locks.

    Raises:
        UsageError: If another command trains in the folder.
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        yield
        return
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(
                f"Another lit-dense compare trains in {out}: wait for it, or use another --out."
            ) from error
        yield
