"""Time and memory of matching an image's anchors with its objects, beside torchvision's ``box_iou`` and ``Matcher``.

    python benchmarks/matching.py --height 800 --width 1088 --objects 7 100 300 500

Both run in turns in one process and one thread, so that a busy machine slows them alike: read the ratios. Memory is the
largest resident size of a process of its own beyond what it held before.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from multiprocessing import get_context

import torch
from measuring import CLEAR, extra_memory_of, machine, report, spread
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import _default_anchorgen
from torchvision.ops import box_iou

from lit_dense.functional.matching import match_by_iou

Match = Callable[[Tensor, Tensor], Tensor]


def by_torchvision(anchors: Tensor, gt_boxes: Tensor) -> Tensor:
    """As its RetinaNet matches."""
    matches: Tensor = Matcher(0.5, 0.4, allow_low_quality_matches=True)(box_iou(gt_boxes, anchors))
    return matches


WAYS: dict[str, Match] = {"torchvision": by_torchvision, "lit_dense": match_by_iou}


def anchors_of(height: int, width: int) -> Tensor:
    """Anchors of torchvision's RetinaNet: five levels of strides 8 to 128, nine for each place."""
    features = [torch.zeros(1, 1, -(-height // s), -(-width // s)) for s in (8, 16, 32, 64, 128)]
    anchors: Tensor = _default_anchorgen()(ImageList(torch.zeros(1, 3, height, width), [(height, width)]), features)[0]
    return anchors


def objects(number: int, height: int, width: int, smallest: float, largest: float) -> Tensor:
    """Boxes anywhere in the picture, sides between two lengths, of equal numbers in each octave [G, 4]."""
    generator = torch.Generator().manual_seed(number)
    span = torch.rand(number, 2, generator=generator)
    sides = smallest * (largest / smallest) ** span
    centres = torch.rand(number, 2, generator=generator) * torch.tensor([width, height])
    limits = torch.tensor([width, height, width, height])
    return torch.cat([centres - sides / 2, centres + sides / 2], 1).clamp(min=0).minimum(limits)


def extra_memory(name: str, size: tuple[int, int], number: int, sides: tuple[float, float]) -> float:
    """Peak of one matching beyond what was held before it, in MiB; Linux only."""
    torch.set_num_threads(1)
    WAYS[name](anchors_of(64, 64), objects(2, 64, 64, *sides))  # what a first call loads is not the matching's
    anchors, gt_boxes = anchors_of(*size), objects(number, *size, *sides)
    return extra_memory_of(lambda: WAYS[name](anchors, gt_boxes))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--width", type=int, default=1088)
    parser.add_argument("--objects", type=int, nargs="+", default=[7, 100, 300, 500])
    parser.add_argument("--smallest", type=float, default=10, help="side of an object in pixels")
    parser.add_argument("--largest", type=float, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    size, sides = (options.height, options.width), (options.smallest, options.largest)
    anchors = anchors_of(*size)
    print(machine())
    print(f"{len(anchors):,} anchors, objects of {sides[0]:g} to {sides[1]:g} pixels\n")
    print("| objects | torchvision, ms | lit_dense, ms | less time | torchvision, MiB | lit_dense, MiB |")
    print("|---|---|---|---|---|---|")
    for number in options.objects:
        gt_boxes = objects(number, *size, *sides)
        times: dict[str, list[float]] = {name: [] for name in WAYS}
        for turn in range(options.rounds + 1):
            found = []
            for name, match in WAYS.items():
                start = time.process_time()
                found.append(match(anchors, gt_boxes))
                if turn:  # the first round warms up
                    times[name].append(time.process_time() - start)
            if not torch.equal(*found):
                raise SystemExit(f"Different matches of {number} objects.")
        memory: dict[str, float] = {}
        if CLEAR.exists():
            for name in WAYS:
                with get_context("spawn").Pool(1) as pool:
                    memory[name] = pool.apply(extra_memory, (name, size, number, sides))
        ratios = [a / b for a, b in zip(*times.values(), strict=True)]
        cells = [
            str(number),
            *(f"{1000 * statistics.median(t):.1f}" for t in times.values()),
            spread(ratios),
            *(f"{memory[name]:.0f}" if name in memory else "" for name in WAYS),
        ]
        print("| " + " | ".join(cells) + " |", flush=True)
        theirs, own = WAYS
        item = f"matching, {len(anchors):,} anchors, {number} objects"
        report(item, theirs, times[own], times[theirs], [memory[name] for name in (own, theirs) if name in memory])


if __name__ == "__main__":
    main()
