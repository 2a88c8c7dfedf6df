"""Time of the operations that losses consist of, on one thread: the lower bound on this machine.

    python benchmarks/ops.py

The time is in nanoseconds per element of float32 tensors that fit the cache. ``log1p`` and ``softplus`` are measured
twice: first in a new process, then after a computation with -0, which maps a page of constants of PyTorch's vector code
(see lit_dense/functional/softplus.py). On CPUs with AVX-512 the first takes ten times as long. Another process does
both, so that nothing has mapped the page before.
"""

import argparse
import time
from collections.abc import Callable
from multiprocessing import get_context

import torch
import torch.nn.functional as F
from measuring import as_in_training, machine
from torch import Tensor

from lit_dense.functional.softplus import map_constants

FEW, MANY = 5, 80


def operations(number: int) -> dict[str, Callable[[], Tensor]]:
    """Return the operations, for tensors with this number of elements."""
    torch.manual_seed(0)
    x, p, out = torch.randn(number) - 4, torch.rand(number), torch.empty(number)
    mask, index, bins = x > -4, torch.randint(30, (number,)), torch.zeros(30)
    few, many = (x[: number // columns * columns].view(-1, columns) for columns in (FEW, MANY))
    return {
        "copy": lambda: out.copy_(x),
        "add, multiply": lambda: x * p,
        "divide": lambda: x / p,
        "compare": lambda: x > 0,
        "where": lambda: torch.where(mask, x, p),
        "sigmoid": lambda: torch.sigmoid(x),
        "exp": lambda: torch.exp(x),
        "log": lambda: torch.log(p),
        "power 1.5": lambda: p**1.5,
        f"sum of rows of {MANY}": lambda: many.sum(1),
        f"sum of rows of {FEW}": lambda: few.sum(1),
        f"log_softmax of rows of {MANY}": lambda: F.log_softmax(many, 1),
        f"log_softmax of rows of {FEW}": lambda: F.log_softmax(few, 1),
        "look up in 30 bins": lambda: bins.index_select(0, index),
        "count in 30 bins": lambda: torch.zeros(30).scatter_add_(0, index, p),
    }


def affected(number: int) -> dict[str, Callable[[], Tensor]]:
    """Return the operations that depend on the page of constants."""
    x, p = torch.randn(number) - 4, torch.rand(number)
    return {
        "log1p": lambda: torch.log1p(p),
        "softplus": lambda: F.softplus(x),
        "logsigmoid": lambda: F.logsigmoid(x),
        "cross-entropy": lambda: F.binary_cross_entropy_with_logits(x, p, reduction="none"),
    }


def nanoseconds(operation: Callable[[], Tensor], number: int, turns: int = 7) -> float:
    """Return the time per element, the least of some turns."""
    operation()
    repeats = max(10, 2**21 // number)
    least = float("inf")
    for _ in range(turns):
        start = time.process_time()
        for _ in range(repeats):
            operation()
        least = min(least, (time.process_time() - start) / repeats / number)
    return 1e9 * least


def before_and_after(number: int) -> dict[str, tuple[float, float]]:
    """Measure the affected operations in this process, before and after the page is mapped."""
    as_in_training()
    before = {name: nanoseconds(operation, number) for name, operation in affected(number).items()}
    map_constants(torch.empty(number))
    return {name: (before[name], nanoseconds(one, number)) for name, one in affected(number).items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=2**16, help="elements of a tensor")
    options = parser.parse_args()
    as_in_training()
    print(f"{machine()}, {torch.backends.cpu.get_cpu_capability()}, {options.number:,} elements\n")
    print("| operation | ns per element | in a new process |")
    print("|---|---|---|")
    for name, operation in operations(options.number).items():
        print(f"| {name} | {nanoseconds(operation, options.number):.2f} | |", flush=True)
    with get_context("spawn").Pool(1) as pool:
        for name, (before, after) in pool.apply(before_and_after, (options.number,)).items():
            print(f"| {name} | {after:.2f} | {before:.2f} |")


if __name__ == "__main__":
    main()
