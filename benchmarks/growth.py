"""How the cost of losses and matching grows: with classes, with anchors, with objects. Draws one picture.

    python benchmarks/growth.py --out docs/growth.png

CPU time of a loss is forward and backward to the logits, that of matching one image's; medians, all ways in turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from losses import Size, own, torchvision_focal
from matching import WAYS, anchors_of, objects
from matplotlib.figure import Figure
from measuring import as_in_training

STYLES = {
    "torchvision": ("#D55E00", "s"),
    "focal": ("#0072B2", "o"),
    "ghm": ("#009E73", "^"),
    "lit_dense": ("#0072B2", "o"),
}
Ways = dict[str, Callable[[], object]]


def losses(anchors: int, classes: int) -> Ways:
    """Torchvision's loss and two of ours on one image."""
    size = Size(1, anchors, classes, "cpu", torch.float32)
    found: Ways = {"torchvision": torchvision_focal(size)}
    return found | {name: own(name, size) for name in ("focal", "ghm")}


def matchings(number: int) -> Ways:
    """Both ways of matching an image of 800 by 1,088 pixels."""
    anchors, gt_boxes = anchors_of(800, 1088), objects(number, 800, 1088, 10, 400)
    return {name: lambda way=way: way(anchors, gt_boxes) for name, way in WAYS.items()}


def grow(make: Callable[[int], Ways], sizes: Sequence[int], rounds: int) -> dict[str, list[float]]:
    """Median CPU milliseconds of each way at each size."""
    found: dict[str, list[float]] = {}
    for size in sizes:
        ways = make(size)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(rounds + 1):
            for name, step in ways.items():
                started = time.process_time()
                step()
                if turn:
                    times[name].append(1000 * (time.process_time() - started))
        for name, values in times.items():
            found.setdefault(name, []).append(statistics.median(values))
    return found


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("growth.png"))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    as_in_training()
    panels = [
        ("classes, 20,000 anchors", [5, 20, 80, 300, 1203], lambda number: losses(20_000, number)),
        ("anchors, 80 classes", [5_000, 20_000, 80_000, 160_000], lambda number: losses(number, 80)),
        ("objects, matching 155,142 anchors", [1, 10, 50, 100, 200, 500], matchings),
    ]
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    for axes, (title, sizes, make) in zip(figure.subplots(1, 3), panels, strict=True):
        print(f"{title}: {sizes}")
        for name, values in grow(make, sizes, options.rounds).items():
            print(f"  {name}: {', '.join(f'{value:.1f}' for value in values)} ms", flush=True)
            colour, marker = STYLES[name]
            axes.plot(sizes, values, color=colour, marker=marker, label=name)
        axes.set(xscale="log", yscale="log", xlabel=title, ylabel="CPU milliseconds an image")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(options.out, dpi=100)


if __name__ == "__main__":
    main()
