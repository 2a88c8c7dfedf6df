"""What the data costs: images per second beside torchvision's CocoDetection with v2 transforms, and opening a file.

    python benchmarks/data.py --images datasets/bccd/images --annotations datasets/bccd/annotations/train.json
    python benchmarks/data.py --open instances_train2017.json

Images are read one after another in this process, in turns, through the same transforms; several workers multiply both
alike. "float32" is what a loader hands over that scales on the CPU; uint8 travels at a quarter of the size. Opening is
measured in a process of its own for each, with its peak memory.
"""

import argparse
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.transforms import v2

from lit_dense import CocoDataModule
from lit_dense.data.coco_json import read_coco
from lit_dense.data.problems import Problems
from lit_dense.data.transforms import default_train_transforms


def data_sets(options: argparse.Namespace) -> dict[str, object]:
    """The same images, from here and from torchvision."""
    transforms = default_train_transforms()
    data = CocoDataModule(
        train_images=options.images.resolve(), train_annotations=options.annotations.resolve(), transforms=transforms
    )
    data.setup("fit")
    theirs = v2.Compose([v2.ToImage(), *transforms, v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes()])
    scaled = v2.Compose([theirs, v2.ToDtype(torch.float32, scale=True)])

    def peer(transform: v2.Transform) -> object:
        coco = CocoDetection(str(options.images), str(options.annotations), transforms=transform)
        return wrap_dataset_for_transforms_v2(coco, target_keys=("image_id", "boxes", "labels"))

    return {"lit_dense": data.train_dataloader().dataset, "torchvision": peer(theirs), "float32": peer(scaled)}


def measure(dataset: object, number: int) -> float:
    """Images per CPU second."""
    torch.manual_seed(0)
    started = time.process_time()
    for index in range(number):
        dataset[index % len(dataset)]
    return number / (time.process_time() - started)


def opening(case: str, path: Path) -> None:
    """CPU seconds and peak memory of reading a file."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    if case == "lit_dense":
        read_coco(path, Problems())
    else:
        from pycocotools.coco import COCO

        COCO(str(path))
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"| {case} | {time.process_time() - started:.1f} | {peak:.0f} |")


def main() -> None:
    """Measure in turns and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--annotations", type=Path)
    parser.add_argument("--open", type=Path, help="a COCO file to open")
    parser.add_argument("--number", type=int, default=100, help="images of a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.case:
        opening(options.case, options.open)
        return
    if options.open:
        print("| opening | CPU seconds | peak MiB |\n|---|---|---|", flush=True)
        for case in ("lit_dense", "pycocotools"):
            command = [sys.executable, *sys.argv, "--case", case]
            print(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    if options.images:
        found: dict[str, list[float]] = {}
        sets = data_sets(options)
        for _ in range(options.turns):
            for name, dataset in sets.items():
                found.setdefault(name, []).append(measure(dataset, options.number))
        print(f"\n{platform.machine()}, {options.number} images a turn, one thread")
        print("| | images per CPU second | over torchvision |\n|---|---|---|")
        for name, rates in found.items():
            ratios = [rate / peer for rate, peer in zip(rates, found["torchvision"], strict=True)]
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(f"| {name} | {statistics.median(rates):.0f} | {spread} |")


if __name__ == "__main__":
    main()
