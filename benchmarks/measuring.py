"""What the benchmarks have in common: memory, spreads, the machine's name, and rows for the table of all."""

import gc
import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

CLEAR = Path("/proc/self/clear_refs")
"""Where a process can have the peak of its memory start anew; Linux only."""


def extra_memory_of(step: Callable[[], object]) -> float:
    """Peak of the resident size while a step runs, beyond what was held before it, in MiB."""
    before = resident("VmRSS")
    reset_peak()
    step()
    return resident("VmHWM") - before


def resident(field: str) -> float:
    """Resident size of this process, now (VmRSS) or at the peak (VmHWM), in MiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def reset_peak() -> None:
    """Let the peak start anew."""
    CLEAR.write_text("5")


def machine(device: str = "cpu") -> str:
    """Processor or device, cores and torch."""
    name = platform.processor() or platform.machine() if device == "cpu" else torch.cuda.get_device_name(device)
    return f"{name}, {os.cpu_count()} cores, torch {torch.__version__}, one thread"


def as_in_training() -> None:
    """One thread, and an allocator that has seen a tensor of some size go: before that it gives each small one back."""
    torch.set_num_threads(1)
    torch.zeros(5_000_000)


def kernel_time(step: Callable[[], object]) -> float:
    """Milliseconds in which the device computes during a step, without those in which it waits for the processor."""
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        step()
        torch.cuda.synchronize()
    events = [
        event
        for event in profile.events()
        if event.device_type == torch.autograd.DeviceType.CUDA and not getattr(event, "is_user_annotation", False)
    ]
    slowest = sorted(((event.time_range.elapsed_us(), event.name) for event in events), reverse=True)
    print(*(f"{microseconds:9.1f} us  {name}" for microseconds, name in slowest[:12]), sep="\n")  # the part's log
    return sum(microseconds for microseconds, _ in slowest) / 1000


def free(device: str) -> None:
    """Return the memory of finished items to the device."""
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()


def spread(ratios: Sequence[float]) -> str:
    """Median of paired ratios, smallest and largest."""
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f})"


LARGEST_FALL = 1 / 3
"""Relative fall of a ratio from which the check fails; smaller ones are the noise of a shared machine."""
ROWS = "BENCHMARK_ROWS"
"""Names the file, if any, in which ``run_all.py`` gathers the rows of its table."""


def report(item: str, peer: str, own: Sequence[float], theirs: Sequence[float], memory: Sequence[float] = ()) -> None:
    """Add a row to the table of all benchmarks.

    Args:
        item: What was measured.
        peer: What it stands beside.
        own: Seconds of each turn.
        theirs: Seconds of the peer in the same turns.
        memory: MiB at the peak, own and the peer's.
    """
    if ROWS not in os.environ:
        return
    ratios = [b / a for a, b in zip(own, theirs, strict=False)]
    milliseconds = [f"{1000 * statistics.median(one):,.1f}" for one in (own, theirs)]
    row = [item, peer, *milliseconds, spread(ratios), *(f"{one:,.0f}" for one in memory)]
    with Path(os.environ[ROWS]).open("a") as file:
        file.write(json.dumps(row) + "\n")


def ratios(path: Path) -> dict[str, float]:
    """Return the median ratio of each reported row, by item and peer."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {f"{row[0]} / {row[1]}": float(row[4].split()[0]) for row in rows}


def fallen(measured: Mapping[str, float], committed: Mapping[str, float]) -> list[str]:
    """Return one line for each committed ratio that was not measured, or fell by a third or more."""
    faults = []
    for name, before in committed.items():
        if name not in measured:
            faults.append(f"{name}: was not measured; it was {before:.2f}. If it was renamed, run with --update.")
        elif measured[name] <= before * (1 - LARGEST_FALL):
            faults.append(f"{name}: {measured[name]:.2f} times less than its peer; it was {before:.2f}.")
    return faults


def table(path: Path) -> str:
    """The rows that were reported, as one table."""
    heads = ["item", "beside", "ms", "the peer's", "less time", "MiB", "the peer's"]
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [row + [""] * (len(heads) - len(row)) for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [heads, ["---"] * len(heads), *rows])
