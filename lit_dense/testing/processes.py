"""The check that two processes compute the same as one."""

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

from ..core.distributed import Reduce
from ..core.step_context import StepContext
from .batches import images_of, with_derived, with_leaves
from .check_runner import Fault, Finding, NotRun
from .subject import Subject, gradients
from .tensor_differences import copied_state, difference, state_difference
from .values import ROUNDING

TwoProcesses = Callable[..., list[Any]]
"""``two_processes(function, *args)``: returns ``function(rank, *args)`` of two processes of one gloo group."""

OBJECTS = (3, 0, 5, 0)
FIRST_OF_SECOND = (3, 1)
"""First image of the second process in each step; in the first step it has one image, without boxes."""
OF_ANCHORS = ("gradient of the logits", "gradient of the deltas")
"""Results with one row for each anchor of a process."""
TIMEOUT = 120.0


def two_processes_agree(subject: Subject, two_processes: TwoProcesses | None = None) -> Iterator[Finding]:
    """Values, gradients and state of two steps are the same on one process and on two with uneven shares."""
    if not (dist.is_available() and dist.is_gloo_available()):
        yield NotRun("this torch has no gloo")
        return
    payload = pickle.dumps(subject)
    try:
        answers = [pickle.loads(a) for a in (two_processes or start_two_processes)(_steps_of_rank, payload)]
    except Exception as error:  # raised by any process launcher, such as Empty by a queue
        yield Fault("results of two processes", f"{type(error).__name__}: {error}", _SAME_COLLECTIVES)
        return
    if errors := [a for a in answers if isinstance(a, str)]:
        yield Fault("no error in two processes", errors[0], _SAME_COLLECTIVES)
        return
    for name, tried in subject.in_processes().items():
        yield from _compared(_steps(tried, None), answers[0][name], answers[1][name], name and f"{name}: ")


def _compared(one: dict[str, Any], first: dict[str, Any], second: dict[str, Any], prefix: str) -> Iterator[Fault]:
    """Compare the results of two processes with those of one; data-parallel training averages the two."""
    for step, (whole, *parts) in enumerate(zip(one["steps"], first["steps"], second["steps"], strict=True)):
        for name, expected in whole.items():
            if any(name not in part for part in parts):
                yield Fault(f"{prefix}in step {step + 1} the {name} on both processes", "a process without", _REDUCE)
                continue
            shared = [part[name] for part in parts]
            mean = torch.cat(shared) / 2 if name in OF_ANCHORS else torch.stack(shared).mean(0)
            if seen := difference(mean, expected, ROUNDING):
                yield Fault(f"{prefix}in step {step + 1} the {name} of one process with all images", seen, _REDUCE)
    if seen := state_difference(second["state"], first["state"]):
        yield Fault(f"{prefix}the same state on both processes", seen, _REDUCE)
    if seen := state_difference(first["state"], one["state"], ROUNDING):
        yield Fault(f"{prefix}the state of one process with all images", seen, _REDUCE)


_REDUCE = (
    "sum everything that is summed over the batch (counts, histograms, divisors) with samples.reduce.sum, or with "
    "sum_with_grad if it needs a gradient; do not reduce the values themselves"
)
_SAME_COLLECTIVES = (
    "call the methods of samples.reduce equally often on every process, even without positives; in a script, call "
    "the check under if __name__ == '__main__'; define the class in a module that can be imported"
)


def _steps(subject: Subject, rank: int | None) -> dict[str, Any]:
    """Return terms, gradients and state of two steps, of all images or of those of one of two processes."""
    criterion = subject.criterion()
    parameters = dict(subject.part_of(criterion).named_parameters())
    names = [*OF_ANCHORS, *(f"gradient of {name}" for name in parameters)]
    steps = []
    for seed, border in enumerate(FIRST_OF_SECOND):
        samples = subject.batch(OBJECTS, seed=seed)
        if rank is not None:
            samples = images_of(samples, *((0, border), (border, len(OBJECTS)))[rank])
        reduce = Reduce(enabled=rank is not None)
        context = StepContext(reduce, criterion.step, class_counts=subject.counts)
        samples, leaves = with_leaves(replace(samples, context=context))
        terms = subject.own_terms(criterion(with_derived(samples)))
        slopes = gradients(torch.stack(list(terms.values())).sum(), (*leaves, *parameters.values()))
        losses = {f"loss term {name}": term.detach() for name, term in terms.items()}
        steps.append(losses | dict(zip(names, slopes, strict=True)))
    return {"steps": steps, "state": copied_state(subject.part_of(criterion))}


def _steps_of_rank(rank: int, payload: bytes) -> bytes:
    try:
        subject: Subject = pickle.loads(payload)
        return pickle.dumps({name: _steps(tried, rank) for name, tried in subject.in_processes().items()})
    except Exception:  # reported by the calling process
        return pickle.dumps(f"process {rank}: {traceback.format_exc()}")


def start_two_processes(function: Callable[..., Any], *args: Any, timeout: float = TIMEOUT) -> list[Any]:
    """Run ``function(rank, *args)`` in two new processes of one gloo group and return both results.

    Args:
        function: A function at the top level of a module.
        args: Further arguments of the function.
        timeout: Seconds until the processes are killed.

    Raises:
        RuntimeError: If a process returns no result in time.
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
