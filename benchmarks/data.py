"""What the data costs: images per second beside torchvision's CocoDetection with v2 transforms, and opening a file.

    python benchmarks/data.py                                       # made-up photographs and annotations
    python benchmarks/data.py --images datasets/bccd/images --annotations datasets/bccd/annotations/train.json
    python benchmarks/data.py --open instances_train2017.json

Images are read one after another in this process, in turns, through the same transforms; several workers multiply both
alike. "with mosaic" and so on apply the augmentation to every image. "cache=ram" and "cache=disk" read images that are
in the cache already; "untransformed" is without transforms. --height makes larger photographs. "float32" is what a
loader hands over that scales on the CPU; uint8 travels at a quarter of the size. Opening is measured in a process of
its own for each, with its peak memory.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measuring import extra_memory_of, machine, report, spread
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.io import write_jpeg
from torchvision.transforms import v2

from lit_dense import CocoDataModule
from lit_dense.data.formats.coco import read_coco
from lit_dense.data.problems import Problems
from lit_dense.data.transforms import default_train_transforms


def data_sets(options: argparse.Namespace) -> dict[str, object]:
    """The same images, from here, with each augmentation of several images, and from torchvision."""
    transforms = default_train_transforms()

    def own(*names: str, cache: str | None = None, transforms: list[v2.Transform] = transforms) -> object:
        data = CocoDataModule(
            train_images=options.images.resolve(),
            train_annotations=options.annotations.resolve(),
            transforms=transforms,
            augmentation=[{"class_path": name, "init_args": {"p": 1.0}} for name in names],
            cache=cache,
        )
        data.setup("fit")
        dataset = data.train_dataloader().dataset
        if cache is not None:
            measure(dataset, min(options.number, len(dataset)))  # fills it
        return dataset

    theirs = v2.Compose([v2.ToImage(), *transforms, v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes()])
    scaled = v2.Compose([theirs, v2.ToDtype(torch.float32, scale=True)])

    def peer(transform: v2.Transform) -> object:
        coco = CocoDetection(str(options.images), str(options.annotations), transforms=transform)
        return wrap_dataset_for_transforms_v2(coco, target_keys=("image_id", "boxes", "labels"))

    augmented = {f"with {name}": own(name) for name in ("mosaic", "mixup", "copy_paste", "rare_crop")}
    cached = {f"cache={mode}": own(cache=mode) for mode in ("ram", "disk")}
    cached |= {f"with rare_crop, cache={mode}": own("rare_crop", cache=mode) for mode in ("ram", "disk")}
    decoded = {"untransformed": own(transforms=[])}
    decoded |= {f"untransformed, cache={mode}": own(cache=mode, transforms=[]) for mode in ("ram", "disk")}
    ours = {"lit_dense": own(), "torchvision": peer(theirs), "float32": peer(scaled)}
    return {**ours, **augmented, **cached, **decoded}


def measure(dataset: object, number: int) -> float:
    """Images per CPU second."""
    torch.manual_seed(0)
    started = time.process_time()
    for index in range(number):
        dataset[index % len(dataset)]
    return number / (time.process_time() - started)


def opening(case: str, path: Path) -> None:
    """CPU seconds and peak memory of reading a file; Linux only."""
    started = time.process_time()
    if case == "lit_dense":
        peak = extra_memory_of(lambda: read_coco(path, Problems()))
    else:
        from pycocotools.coco import COCO

        peak = extra_memory_of(lambda: COCO(str(path)))
    print(json.dumps([time.process_time() - started, peak]))


def made_up(folder: Path, images: int, boxes: int, polygon: int, photographs: int = 0) -> Path:
    """Write annotations with so many boxes an image and corners a polygon, and photographs of that height if asked."""
    size = (photographs, photographs * 4 // 3) if photographs else (480, 640)
    rng = np.random.default_rng(0)
    annotations = []
    for image in range(1, images + 1):
        corners, sides = rng.uniform(0, 400, (boxes, 2)), rng.uniform(5, 80, (boxes, 2))
        for (x, y), (width, height) in zip(corners.round(2).tolist(), sides.round(2).tolist(), strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": 1 + len(annotations) % 80,
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "segmentation": [rng.uniform(0, 400, 2 * polygon).round(2).tolist()],
                }
            )
        if photographs:
            coarse = torch.rand(1, 3, 15, 20, generator=torch.Generator().manual_seed(image))
            smooth = torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)[0]
            write_jpeg((smooth * 255).to(torch.uint8), str(folder / f"{image}.jpg"))
    data = {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": size[1], "height": size[0]} for i in range(1, images + 1)
        ],
        "annotations": annotations,
        "categories": [{"id": k, "name": f"class {k}"} for k in range(1, 81)],
    }
    path = folder / f"{images}.json"
    path.write_text(json.dumps(data))
    return path


def compare_opening(path: Path, turns: int) -> None:
    """Open a file in turns and print the table."""
    found: dict[str, list[list[float]]] = {}
    for _ in range(turns):
        for case in ("lit_dense", "pycocotools"):
            command = [sys.executable, __file__, "--open", str(path), "--case", case]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found.setdefault(case, []).append(json.loads(done.stdout.splitlines()[-1]))
    size = f"{path.stat().st_size / 2**20:.0f} MiB of annotations"
    print(f"\n{size}\n\n| opening | CPU seconds | peak MiB |\n|---|---|---|")
    seconds = {case: [one for one, _ in runs] for case, runs in found.items()}
    memory = {case: statistics.median(peak for _, peak in runs) for case, runs in found.items()}
    for case in found:
        print(f"| {case} | {statistics.median(seconds[case]):.2f} | {memory[case]:.0f} |")
    report(f"opening {size}", "pycocotools", *seconds.values(), list(memory.values()))


def compare_images(options: argparse.Namespace) -> None:
    """Read images in turns and print the table."""
    found: dict[str, list[float]] = {}
    sets = data_sets(options)
    for _ in range(options.turns):
        for name, dataset in sets.items():
            found.setdefault(name, []).append(measure(dataset, options.number))
    print("| | images per CPU second | over torchvision |\n|---|---|---|")
    for name, rates in found.items():
        ratios = [rate / peer for rate, peer in zip(rates, found["torchvision"], strict=True)]
        print(f"| {name} | {statistics.median(rates):.0f} | {spread(ratios)} |")
    own, theirs = ([1 / rate for rate in found[name]] for name in ("lit_dense", "torchvision"))
    report("an image decoded and transformed", "torchvision", own, theirs)


def main() -> None:
    """Measure in turns and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--annotations", type=Path)
    parser.add_argument("--open", type=Path, help="a COCO file to open")
    parser.add_argument("--number", type=int, default=100, help="images of a turn")
    parser.add_argument("--height", type=int, default=480, help="of the made-up photographs; the width is 4/3 of it")
    parser.add_argument("--annotated", type=int, default=20000, help="images of the file that is made up to be opened")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.case:
        opening(options.case, options.open)
        return
    print(machine() + "\n")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        if not options.images and not options.open:
            options.annotations = made_up(Path(folder), 50, 7, 4, options.height)
            options.images = Path(folder)
            options.open = made_up(Path(folder), options.annotated, 7, 20)
        if options.images:
            compare_images(options)
        if options.open:
            compare_opening(options.open, options.turns)


if __name__ == "__main__":
    main()
