"""Time and memory of a whole training step: torchvision's RetinaNet, and the same model with its loss taken over.

    python benchmarks/step.py --classes 1203 --size 320
    python benchmarks/step.py --classes 80 --size 800 --batch 16 --device cuda --precision bfloat16 --largest

R50 FPN as it is trained from weights of ImageNet, with two stages and the batch norms frozen, but with random weights;
forward, backward and a step of SGD with momentum. Every measurement has a process of its own, and the two models take
turns, so that a busy machine slows both alike: read the ratios. Memory is the peak beyond model, momentum and images:
resident size of the process, or what the device allocated. The share is that of the head and the loss, both ways. On a
device, --largest also looks for the largest batch that fits its memory.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from typing import Any, NamedTuple, TypeVar

import torch
from measuring import machine, report, reset_peak, resident, spread
from torch import Tensor
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from lit_dense import patch

OBJECTS = 10
DIFFERENT = 16
"""Images of a batch that differ; a larger batch has them more than once, for their noise takes long to make."""
NAMES = ["torchvision", "lit_dense"]
T = TypeVar("T")


class Size(NamedTuple):
    """What both models compute.

    Args:
        images: In the batch.
        pixels: Height and width of the images.
        classes: Of objects.
        steps: In each process, of which the last is timed.
        device: Where.
        dtype: Of autocast; float32 for none.
    """

    images: int
    pixels: int
    classes: int
    steps: int
    device: str
    dtype: torch.dtype


class Measured(NamedTuple):
    """What one process finds out.

    Args:
        seconds: Of a step.
        head: Of them, seconds of the head and the loss.
        peak: Memory of a step in MiB beyond what was held before.
    """

    seconds: float
    head: float
    peak: float


class Marks:
    """The times at which a step enters the head, leaves the forward pass, and leaves the head in the backward pass."""

    def __init__(self, model: Any, device: str) -> None:
        self.times: list[float] = []
        self.device = device
        model.head.register_forward_pre_hook(self.enter)

    def note(self, _: Any = None) -> None:
        """What the clock says: of the processor in this process, or of the device."""
        if self.device != "cpu":
            torch.cuda.synchronize()
        self.times.append(time.process_time() if self.device == "cpu" else time.perf_counter())

    def enter(self, _: Any, inputs: tuple[list[Tensor]]) -> None:
        """The finest level's gradient is the last that the head makes."""
        self.note()
        inputs[0][0].register_hook(self.note)


def batch(images: int, size: int, classes: int, device: str) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Images of noise, with objects of all sizes."""
    generator = torch.Generator().manual_seed(0)
    pictures, targets = [], []
    for number in range(images):
        if number >= DIFFERENT:
            pictures.append(pictures[number % DIFFERENT].clone())
            targets.append(targets[number % DIFFERENT])
            continue
        corner = torch.rand(OBJECTS, 2, generator=generator) * 0.5 * size
        sides = (torch.rand(OBJECTS, 2, generator=generator) * 0.4 + 0.1) * size
        labels = torch.randint(classes, (OBJECTS,), generator=generator)
        pictures.append(torch.rand(3, size, size, generator=generator).to(device))
        targets.append({"boxes": torch.cat([corner, corner + sides], 1).to(device), "labels": labels.to(device)})
    return pictures, targets


def training_step(name: str, size: Size) -> tuple[Callable[[], None], Marks]:
    """One step of training on a fixed batch, and the times of its parts."""
    images, pixels, classes, _, device, dtype = size
    torch.set_num_threads(1)
    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50",
        weights=None,
        norm_layer=FrozenBatchNorm2d,
        trainable_layers=3,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    model = RetinaNet(backbone, classes, min_size=pixels, max_size=pixels).to(device).train()
    if name == "lit_dense":
        patch(model)
    marks = Marks(model, device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)  # nobody looks at the weights

    def step(pictures: list[Tensor], targets: list[dict[str, Tensor]]) -> None:
        marks.times.clear()
        optimizer.zero_grad()
        marks.note()
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            loss = sum(model(pictures, targets).values())
        marks.note()
        loss.backward()
        optimizer.step()
        marks.note()

    model.transform.min_size = (64,)
    step(*batch(1, 64, classes, device))  # what a first step loads, and the momentum, are not counted
    optimizer.zero_grad()
    model.transform.min_size = (pixels,)
    return partial(step, *batch(images, pixels, classes, device)), marks


def measure(name: str, size: Size) -> Measured:
    """Time of the last step; memory of the first, on a device of the last, when all is compiled."""
    return measured(*training_step(name, size), size)


def measured(step: Callable[[], None], marks: Marks, size: Size) -> Measured:
    """The same of a step that was made before."""
    device = size.device
    before, peaks = _memory(device, "VmRSS"), []
    for _ in range(size.steps):
        _reset_peak(device)
        step()
        peaks.append(_memory(device, "VmHWM") - before)
    peak = peaks[0 if device == "cpu" else -1]
    start, entered, _, left_backward, end = marks.times
    return Measured(end - start, left_backward - entered, peak)


def _memory(device: str, field: str) -> float:
    """Held now (VmRSS) or at the peak (VmHWM), in MiB."""
    if device != "cpu":
        used = torch.cuda.memory_allocated() if field == "VmRSS" else torch.cuda.max_memory_allocated()
        return used / 2**20
    return resident(field)


def _reset_peak(device: str) -> None:
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    else:
        reset_peak()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=1203)
    parser.add_argument("--size", type=int, default=320, help="of the square images, in pixels")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="in each process; the last is timed")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--largest", action="store_true", help="also find the largest batch; on a device alone")
    options = parser.parse_args()
    dtype = getattr(torch, options.precision)
    size = Size(options.batch, options.size, options.classes, options.steps, options.device, dtype)
    print(machine(options.device))
    print(f"{size.images} images of {size.pixels} px, {size.classes:,} classes, {options.precision}\n")
    names = NAMES if size.device == "cpu" else [name for name in NAMES if _apart(_fits, name, size)]
    for name in set(NAMES) - set(names):
        print(f"{name} does not fit the memory of the device.")
    found: dict[str, list[Measured]] = {name: [] for name in names}
    for turn in range(options.turns):
        for name in names[:: 1 if turn % 2 == 0 else -1]:  # neither is always the first
            found[name].append(_apart(measure, name, size))
    show(found, size)
    if options.largest:
        batches = {name: largest_batch(partial(_fits_apart, name, size)) for name in NAMES}
        print("\nLargest batch: " + ", ".join(f"{name} {images}" for name, images in batches.items()))


def show(found: dict[str, list[Measured]], size: Size) -> None:
    """Print the table; without ratios where only one of the two fits the memory."""
    print(
        "| step | s | share of head and loss | less time | head and loss, less time | memory, MiB | of torchvision's |"
    )
    print("|---|---|---|---|---|---|---|")
    stock = found.get("torchvision", [])
    for name, own in found.items():
        pairs = list(zip(stock, own, strict=False))
        cells = [
            name,
            f"{statistics.median(m.seconds for m in own):.2f}",
            f"{statistics.median(m.head / m.seconds for m in own):.0%}",
            spread([a.seconds / b.seconds for a, b in pairs]) if pairs else "",
            spread([a.head / b.head for a, b in pairs]) if pairs else "",
            f"{statistics.median(m.peak for m in own):.0f}",
            spread([b.peak / a.peak for a, b in pairs]) if pairs else "",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)
    if len(found) == len(NAMES):
        dtype = str(size.dtype).removeprefix("torch.")
        report(
            f"step, {size.images} x {size.pixels} px, {size.classes:,} classes, {dtype}",
            "torchvision",
            *([m.seconds for m in found[name]] for name in reversed(NAMES)),
            [statistics.median(m.peak for m in found[name]) for name in reversed(NAMES)],
        )


def largest_batch(fits: Callable[[int], bool], first: int = 1, within: int = 1, most: int = 2**14) -> int:
    """Find the largest batch that fits: from a first guess in growing steps, up or down, and then in halving ones.

    Args:
        fits: Whether a step with a number of images fits the memory.
        first: Images that are tried first.
        within: Difference between the result and the smallest number found too large, at most; also the first step.
        most: Images that are never exceeded.
    """
    good, bad = 0, most + 1
    images, step = max(1, min(first, most)), within
    while bad - good > within and good < most:
        if fits(images):
            good = images
        else:
            bad = images
        images = min(most, good + step) if bad > most else (good + bad) // 2 if good else max(1, bad - step)
        step *= 2
    return good


def _fits(name: str, size: Size) -> bool:
    try:
        measure(name, size)
    except torch.cuda.OutOfMemoryError:
        return False
    return True


def _fits_apart(name: str, size: Size, images: int) -> bool:
    return _apart(_fits, name, size._replace(images=images, steps=2))


def _apart(function: Callable[..., T], *args: Any) -> T:
    """What a function returns in a process of its own."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(function, args)


if __name__ == "__main__":
    main()
