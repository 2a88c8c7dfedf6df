"""The check that two processes compute what one computes."""

import pickle
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ..reduce import Reduce
from .batches import images_of, with_derived, with_leaves
from .compare import copied_state, difference, state_difference
from .report import Fault, Finding, NotRun
from .subject import Subject, gradients
from .values import ROUNDING

TwoProcesses = Callable[..., list[Any]]
"""``two_processes(function, *args)``: results of ``function(rank, *args)`` of two processes of one gloo group."""

OBJECTS = (3, 0, 5, 0)
FIRST_OF_SECOND = (3, 1)
"""In each step, the first image of the second process: in the first step it has one image, without boxes."""
TIMEOUT = 120.0


def two_processes_agree(subject: Subject, two_processes: TwoProcesses | None = None) -> Iterator[Finding]:
    """Values, gradients and state of two steps are the same in one process and in two with uneven shares."""
    if not (dist.is_available() and dist.is_gloo_available()):
        yield NotRun("this torch has no gloo")
        return
    payload = pickle.dumps(subject)
    try:
        answers = [pickle.loads(a) for a in (two_processes or start_two_processes)(_steps_of_rank, payload)]
    except Exception as error:  # of whatever runs the processes, such as the Empty of a queue that was waited for
        yield Fault("results of two processes", f"{type(error).__name__}: {error}", _SAME_COLLECTIVES)
        return
    if errors := [a for a in answers if isinstance(a, str)]:
        yield Fault("no error in two processes", errors[0], _SAME_COLLECTIVES)
        return
    one = _steps(subject, None)
    for step, (expected, first, second) in enumerate(zip(one["steps"], *(a["steps"] for a in answers), strict=True)):
        found = {"loss term": difference((first[0] + second[0]) / 2, expected[0], ROUNDING)}
        for index, name in enumerate(("logits", "deltas"), start=1):
            shared = torch.cat([first[index], second[index]]) / 2  # data-parallel training takes the mean
            found[f"gradient of the {name}"] = difference(shared, expected[index], ROUNDING)
        for what, seen in found.items():
            if seen:
                yield Fault(f"in step {step + 1} the {what} of one process with all images", seen, _REDUCE)
    if seen := state_difference(answers[1]["state"], answers[0]["state"]):
        yield Fault("the same state on both processes", seen, _REDUCE)
    if seen := state_difference(answers[0]["state"], one["state"], ROUNDING):
        yield Fault("the state of one process with all images", seen, _REDUCE)


_REDUCE = (
    "whatever is summed over the batch (counts, histograms, divisors) goes through samples.reduce.sum, or "
    "sum_with_grad where a gradient flows through it; the values themselves stay each process's own"
)
_SAME_COLLECTIVES = (
    "call the methods of samples.reduce equally often on every process, also where there are no positives; in a script "
    "call the kit under if __name__ == '__main__'; define the loss in a module that can be imported"
)


def _steps(subject: Subject, rank: int | None) -> dict[str, Any]:
    """Term, gradients and state of two steps: of all images, or of those of one of two processes."""
    criterion = subject.criterion()
    steps = []
    for seed, border in enumerate(FIRST_OF_SECOND):
        samples = subject.batch(OBJECTS, seed=seed)
        if rank is not None:
            samples = images_of(samples, *((0, border), (border, len(OBJECTS)))[rank])
        reduce = Reduce(enabled=rank is not None)
        samples, leaves = with_leaves(replace(samples, reduce=reduce, step=criterion.step))
        term = criterion(with_derived(samples))[subject.term]
        steps.append((term.detach(), *gradients(term, leaves)))
    return {"steps": steps, "state": copied_state(subject.part_of(criterion))}


def _steps_of_rank(rank: int, payload: bytes) -> bytes:
    try:
        return pickle.dumps(_steps(pickle.loads(payload), rank))
    except Exception:  # reported by the process that asked
        return pickle.dumps(f"process {rank}: {traceback.format_exc()}")


def start_two_processes(function: Callable[..., Any], *args: Any, timeout: float = TIMEOUT) -> list[Any]:
    """Run ``function(rank, *args)`` in two new processes of one gloo group and return both results.

    Args:
        function: A module's own function.
        args: What it gets.
        timeout: Seconds until the processes are ended.

    Raises:
        RuntimeError: If a process gives no result in time.
    """
    context = mp.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        workers = [context.Process(target=_work, args=(rank, folder, function, args), daemon=True) for rank in (0, 1)]
        for worker in workers:
            worker.start()
        try:
            deadline = time.monotonic() + timeout
            for worker in workers:
                worker.join(max(0.0, deadline - time.monotonic()))
        finally:
            for worker in workers:
                worker.kill()
                worker.join()
        results = [Path(folder, f"result{rank}") for rank in (0, 1)]
        for rank, result in enumerate(results):
            if not result.exists():
                raise RuntimeError(
                    f"process {rank} gave no result within {timeout:.0f} s (exit code {workers[rank].exitcode})"
                )
        return [pickle.loads(result.read_bytes()) for result in results]


def _work(rank: int, folder: str, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=Path(folder, "store").as_uri(), rank=rank, world_size=2)
    result = function(rank, *args)
    partial = Path(folder, f"partial{rank}")
    partial.write_bytes(pickle.dumps(result))
    partial.rename(Path(folder, f"result{rank}"))
    dist.destroy_process_group()
