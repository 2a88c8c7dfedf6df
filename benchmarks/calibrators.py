"""Time of every calibrator for the scores of one image, beside the sigmoid that follows it.

    python benchmarks/calibrators.py --anchors 163206 --classes 80

They run in turns in one process and one thread: read the ratios.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from measuring import as_in_training, machine, report, spread
from torch import Tensor

from lit_dense.calibrators import CALIBRATORS
from lit_dense.core.class_counts import ClassCounts

PEER = "sigmoid"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anchors", type=int, default=163206)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    as_in_training()
    logits = torch.randn(options.anchors, options.classes) - 4
    numbers = torch.arange(options.classes) + 1
    functions: dict[str, Callable[[Tensor], Tensor]] = {PEER: torch.sigmoid}
    for name in sorted(CALIBRATORS.points):
        calibrator = CALIBRATORS.build(name)
        calibrator.prepare_all(options.classes)
        for part in calibrator.modules():
            if hasattr(part, "receive_class_counts"):
                part.receive_class_counts(ClassCounts(numbers, numbers, options.classes * 100))
        functions[name] = calibrator
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(options.rounds + 1):
        for name, function in functions.items():
            start = time.process_time()
            with torch.no_grad():
                function(logits)
            if turn:  # the first round warms up
                times[name].append(time.process_time() - start)
    print(f"{machine()}\n{options.anchors:,} anchors x {options.classes} classes\n")
    print("| calibrator | ms | over sigmoid |\n|---|---|---|")
    for name, taken in times.items():
        ratios = [one / peer for one, peer in zip(taken, times[PEER], strict=True)]
        print(f"| {name} | {1000 * statistics.median(taken):.1f} | {spread(ratios)} |")
        report(f"calibrator {name}", PEER, taken, times[PEER])


if __name__ == "__main__":
    main()
