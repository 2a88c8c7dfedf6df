"""The check that a detector trains on two processes as on one."""

import pickle
import traceback
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from ..core.distributed import Reduce
from ..core.errors import UsageError
from ..detectors import attach, find_detector
from .check_runner import Fault, Finding, NotRun
from .detector_subject import DetectorSubject, Result, unlike
from .processes import TwoProcesses, start_two_processes

STEPS = (((2,), (3, 1)), ((4, 0), (0,)))
"""Objects of each process's images in each step: uneven shares, and a process without objects."""
LOSSES_IN_PROCESSES = (None, "ghm", "eql_v2")
"""The detector's own loss, and two losses that sum state over processes."""
_SUM = "leave all counts over the batch to the criterion, whose normalizer sums over processes"


def two_processes_agree(subject: DetectorSubject, two_processes: TwoProcesses | None = None) -> Iterator[Finding]:
    """Terms and gradients of two steps are the same on one process and on two with uneven shares."""
    if not (dist.is_available() and dist.is_gloo_available()):
        yield NotRun("this torch has no gloo")
        return
    try:
        payload = pickle.dumps(subject)
    except Exception as error:  # nested functions raise various errors
        yield Fault("make, step and detect that can be pickled", str(error), "define them at the top of a module")
        return
    try:
        answers = [pickle.loads(a) for a in (two_processes or start_two_processes)(_results_of_rank, payload)]
    except Exception as error:  # raised by any process launcher, such as Empty by a queue
        yield Fault("results of two processes", f"{type(error).__name__}: {error}", _SUM)
        return
    if errors := [a for a in answers if isinstance(a, str)]:
        yield Fault("no error in two processes", errors[0], _SUM)
        return
    for key, expected in _results(subject, None).items():
        for answer in answers:
            if seen := unlike(answer[key], expected):
                stage, loss, step = key
                where = f" in stage {stage!r}" if stage else ""
                yield Fault(
                    f"in step {step + 1} the terms and gradients of one process with all images, with "
                    f"{loss or 'its own loss'}{where}",
                    seen,
                    _SUM,
                )
                break


def _results_of_rank(rank: int, payload: bytes) -> bytes:
    try:
        return pickle.dumps(_results(pickle.loads(payload), rank))
    except Exception:  # reported by the calling process
        return pickle.dumps(f"process {rank}: {traceback.format_exc()}")


def _results(subject: DetectorSubject, rank: int | None) -> dict[tuple[str, str | None, int], Result]:
    """Return terms and gradients of all images, or their means over processes with a share of the images each."""
    results = {}
    for stage in subject.stages:
        for loss in LOSSES_IN_PROCESSES:
            try:
                model = _without_own_sums(_attached(subject, stage, loss))
            except UsageError:  # covered by the check "parts"
                continue
            for step, shares in enumerate(STEPS):
                images, targets = subject.batch(sum(shares, ()))
                first, last = (0, len(images)) if rank is None else _share(shares, rank)
                share = images[first:last], targets[first:last]
                results[stage, loss, step] = _mean(subject.run(model, share, without=subject.of_process), model)
    return results


def _attached(subject: DetectorSubject, stage: str, loss: str | None) -> nn.Module:
    """Return the model with a loss in one stage, and criteria in the others: stock losses would not communicate."""
    model = subject.model()
    adapter = find_detector(model)
    chosen = {name: {"loss": loss} if name == stage else {} for name in subject.stages}
    attach(adapter, {name: subject.criterion(adapter, name, **given) for name, given in chosen.items()})
    return model


def _share(shares: Any, rank: int) -> tuple[int, int]:
    first = len(shares[0]) if rank else 0
    return first, first + len(shares[rank])


def _without_own_sums(model: nn.Module) -> nn.Module:
    """Disable statistics that the network computes over a process's images, and dropout."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd):
            module.eval()
    return model


def _mean(result: Result, model: nn.Module) -> Result:
    """Average a result over processes; a missing gradient counts as zeros, as in data-parallel training."""
    reduce = Reduce()
    terms = {name: reduce.sum(term) / reduce.world_size for name, term in result.terms.items()}
    gradients = {
        name: reduce.sum(result.gradients.get(name, torch.zeros_like(parameter))) / reduce.world_size
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    return Result(terms, gradients, result.random_state)
