"""Time and memory from a RetinaNet's outputs of one image to its detections, beside torchvision's own.

    python benchmarks/postprocess.py --classes 80 --thresholds 0.05 0.001 --backgrounds -4.6 -7

Both run in turns in one process and one thread, so that a busy machine slows them alike: read the ratios. Memory is the
largest resident size of a process of its own beyond what it held before. A background is the mean logit of what is no
object: focal loss leaves it near -4, binary cross-entropy lower.
"""

import argparse
import statistics
import time
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch
from matching import anchors_of
from measuring import CLEAR, extra_memory_of, machine, report, spread
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet

from lit_dense.detectors import attached, patch

ANCHORS_OF_AN_OBJECT = 12
Outputs = tuple[dict[str, list[Tensor]], list[list[Tensor]], list[tuple[int, int]]]
WAYS = ("torchvision", "lit_dense")


class Body(nn.Module):
    """No backbone: outputs are made up."""

    out_channels = 8


def detector(classes: int, score_thresh: float) -> RetinaNet:
    """Torchvision's RetinaNet with its own settings."""
    return RetinaNet(Body(), classes, score_thresh=score_thresh)


def outputs(size: tuple[int, int], classes: int, background: float, objects: int) -> Outputs:
    """Outputs of one image: noise, and objects that a dozen anchors find."""
    height, width = size
    generator = torch.Generator().manual_seed(0)
    anchors = anchors_of(*size)
    logits = torch.randn(len(anchors), classes, generator=generator) + background
    places = torch.randint(len(anchors) - ANCHORS_OF_AN_OBJECT, (objects, 1), generator=generator)
    rows = (places + torch.arange(ANCHORS_OF_AN_OBJECT)).flatten()
    columns = torch.randint(classes, (objects, 1), generator=generator).expand(-1, ANCHORS_OF_AN_OBJECT).flatten()
    logits[rows, columns] = torch.randn(len(rows), generator=generator) + 1
    deltas = torch.randn(len(anchors), 4, generator=generator) * 0.1
    sizes = [9 * -(-height // stride) * -(-width // stride) for stride in (8, 16, 32, 64, 128)]
    levels = {"cls_logits": list(logits[None].split(sizes, 1)), "bbox_regression": list(deltas[None].split(sizes, 1))}
    return levels, [list(anchors.split(sizes))], [size]


def detect(name: str, model: RetinaNet, given: Outputs) -> list[dict[str, Tensor]]:
    """By the name that the table has."""
    if attached(model) is None:
        patch(model)
    way: Any = model.postprocess_detections if name == "lit_dense" else partial(RetinaNet.postprocess_detections, model)
    with torch.no_grad():
        found: list[dict[str, Tensor]] = way(*given)
    return found


def extra_memory(name: str, size: tuple[int, int], classes: int, background: float, objects: int, low: float) -> float:
    """Peak of one call beyond what was held before it, in MiB; Linux only."""
    torch.set_num_threads(1)
    model = detector(classes, low)
    detect(name, model, outputs((64, 64), classes, background, 3))  # what a first call loads is not the method's
    given = outputs(size, classes, background, objects)
    return extra_memory_of(lambda: detect(name, model, given))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1088)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--objects", type=int, default=30)
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.05, 0.001])
    parser.add_argument("--backgrounds", type=float, nargs="+", default=[-4.6, -7.0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    size = (options.height, options.width)
    print(machine())
    print(f"{len(anchors_of(*size)):,} anchors x {options.classes:,} classes, {options.objects} objects\n")
    print(
        "| threshold | background | torchvision, ms | lit_dense, ms | less time | torchvision, MiB | lit_dense, MiB |"
    )
    print("|---|---|---|---|---|---|---|")
    for low in options.thresholds:
        for background in options.backgrounds:
            model, given = (
                detector(options.classes, low),
                outputs(size, options.classes, background, options.objects),
            )
            times: dict[str, list[float]] = {name: [] for name in WAYS}
            for turn in range(options.rounds + 1):
                found = []
                for name in WAYS:
                    start = time.process_time()
                    found.append(detect(name, model, given))
                    if turn:  # the first round warms up
                        times[name].append(time.process_time() - start)
                if not all(torch.equal(found[0][0][key], found[1][0][key]) for key in found[0][0]):
                    raise SystemExit("Different detections.")
            del given, found
            memory: dict[str, float] = {}
            if CLEAR.exists():
                for name in WAYS:
                    with get_context("spawn").Pool(1) as pool:
                        arguments = (name, size, options.classes, background, options.objects, low)
                        memory[name] = pool.apply(extra_memory, arguments)
            ratios = [a / b for a, b in zip(*times.values(), strict=True)]
            cells = [
                f"{low:g}",
                f"{background:g}",
                *(f"{1000 * statistics.median(t):.1f}" for t in times.values()),
                spread(ratios),
                *(f"{memory[name]:.0f}" if name in memory else "" for name in WAYS),
            ]
            print("| " + " | ".join(cells) + " |", flush=True)
            theirs, own = WAYS
            item = f"post-processing, {options.classes:,} classes, scores from {low:g}, background {background:g}"
            report(item, theirs, times[own], times[theirs], [memory[name] for name in (own, theirs) if name in memory])


if __name__ == "__main__":
    main()
