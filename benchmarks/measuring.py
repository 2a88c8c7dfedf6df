"""What the benchmarks have in common: the peak of a process's memory, and a line that names the machine."""

import os
import platform
from collections.abc import Callable
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
