"""Time and memory of every loss, forward and backward to the logits, beside torchvision's and mmdetection's.

    python benchmarks/losses.py --anchors 163206 --classes 80
    python benchmarks/losses.py --images 16 --device cuda --dtype bfloat16

Losses and peers run in turns in one process and one thread, so that a busy machine slows all of them alike: read the
ratios. Memory is the largest resident size of a process of its own beyond what it held before, over that of the logits;
on a device, what was allocated there. "copy" copies the logits: no loss can read them and write a gradient in less
time. "focal, not compiled" is focal loss as processors compute it, piece by piece.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from multiprocessing import get_context
from typing import NamedTuple

import torch
import torch.nn.functional as F
from measuring import CLEAR, as_in_training, extra_memory_of, machine, report, spread
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.retinanet import RetinaNetClassificationHead

from lit_dense.core.class_counts import ClassCounts
from lit_dense.core.samples import DenseSamples
from lit_dense.functional.fused.anchor_loss import compiled_formulas
from lit_dense.losses import LOSSES, DenseLoss

Step = Callable[[], Tensor]
OBJECTS, POSITIVES_OF_EACH, IGNORED = 10, 30, 200
OTHER_ARGUMENTS = {
    "federated": {"class_path": "federated", "init_args": {"loss": "focal"}},
    "bce, bootstrap": {"class_path": "bce", "init_args": {"bootstrap": "soft"}},
}
"""Losses with other arguments than the default, by the name that the table has."""


class Size(NamedTuple):
    """What all that is compared computes.

    Args:
        images: In the batch.
        anchors: Of each image.
        classes: Columns of the logits, beside those that a loss has of its own.
        device: Where.
        dtype: Of the logits.
    """

    images: int
    anchors: int
    classes: int
    device: str
    dtype: torch.dtype


def batch(size: Size, extra: int = 0) -> DenseSamples:
    """Images whose logits are those of a detector that has begun to learn."""
    images, anchors, classes, device, dtype = size
    generator = torch.Generator().manual_seed(0)
    logits = torch.empty(images * anchors, classes + extra, device=device, dtype=dtype)
    torch.manual_seed(0)
    logits.normal_(-4, 1)
    matched = torch.full((images, anchors), -1)
    for image in range(images):
        taken = torch.arange(OBJECTS).repeat_interleave(POSITIVES_OF_EACH)[: anchors // 2]
        matched[image, : len(taken)] = taken + image * OBJECTS
        matched[image, len(taken) : len(taken) + min(IGNORED, anchors // 4)] = -2
    low = torch.rand(images * anchors, 2, generator=generator) * 700
    objects = images * OBJECTS
    return DenseSamples(
        logits=logits.requires_grad_(),
        deltas=torch.zeros(images * anchors, 4, device=device),
        anchors=torch.cat([low, low + 50], 1).to(device),
        matched_idxs=matched.flatten().to(device),
        gt_boxes=torch.tensor([[10.0, 10, 70, 60]], device=device).repeat(objects, 1),
        gt_labels=torch.randint(classes, (objects,), generator=generator).to(device),
        gt_image_idxs=torch.arange(images, device=device).repeat_interleave(OBJECTS),
        num_images=images,
        image_idxs=torch.arange(images, device=device).repeat_interleave(anchors),
        box_coder=BoxCoder((1.0, 1.0, 1.0, 1.0)),
        known_image_sizes=[(800, 800)] * images,
        extra_logits=extra,
    )


def prepared(name: str, size: Size) -> tuple[DenseLoss, DenseSamples]:
    """A loss of this package with made-up class counts, and a batch with all columns that it needs."""
    classes = size.classes
    loss = LOSSES.build(OTHER_ARGUMENTS.get(name, name))
    counts = ClassCounts(torch.arange(classes) + 1, torch.arange(classes) + 1, classes * 100)
    for part in (m for m in loss.modules() if isinstance(m, DenseLoss) or hasattr(m, "receive_class_counts")):
        part.prepare(classes)
        part.receive_class_counts(counts)
    loss.to(size.device)
    return loss, batch(size, loss.extra_logits)


def own(name: str, size: Size) -> Step:
    """One of ours, with its weights of each image as torchvision has them."""
    loss, samples = prepared(name, size)
    scales = (1 / (samples.pos_per_image.clamp(min=1) * size.images))[samples.image_idxs]

    def step() -> Tensor:
        samples.logits.grad = None
        total: Tensor = (loss(samples.logits, samples.labels, samples) * scales).sum()
        total.backward()
        loss.commit()
        return total

    return step


def torchvision_focal(size: Size) -> Step:
    """Torchvision's loss as its RetinaNet calls it."""
    images, anchors, classes, device, dtype = size
    samples = batch(size)
    head = RetinaNetClassificationHead(8, 9, classes)
    targets = [{"labels": samples.gt_labels[samples.gt_image_idxs == image]} for image in range(images)]
    matched = [m.where(m < 0, m - image * OBJECTS) for image, m in enumerate(samples.matched_idxs.view(images, -1))]

    def step() -> Tensor:
        samples.logits.grad = None
        outputs = {"cls_logits": samples.logits.view(images, anchors, classes)}
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            loss: Tensor = head.compute_loss(targets, outputs, matched)
        loss.backward()
        return loss

    return step


def mmdetection_ghm(size: Size, bins: int = 30) -> Step:
    """GHM-C as mmdetection computes it: one-hot targets and a mask of all elements for each bin."""
    samples = batch(size)
    history = torch.zeros(bins, device=size.device)
    edges = torch.linspace(0, 1, bins + 1)
    edges[-1] += 1e-6

    def step() -> Tensor:
        samples.logits.grad = None
        target = torch.zeros_like(samples.logits)
        target[samples.positives, samples.pos_labels] = 1
        valid = samples.valid[:, None].expand_as(target)
        norm = (samples.logits.sigmoid().detach() - target).abs()
        weights, filled, total = torch.zeros_like(target), 0, max(valid.float().sum().item(), 1.0)
        for index in range(bins):
            inside = (norm >= edges[index]) & (norm < edges[index + 1]) & valid
            count = inside.sum().item()
            if count > 0:
                history[index] = 0.75 * history[index] + 0.25 * count
                weights[inside] = total / history[index]
                filled += 1
        weights = weights / max(filled, 1)
        loss = F.binary_cross_entropy_with_logits(samples.logits, target, weights, reduction="sum") / total
        loss.backward()
        return loss

    return step


def copy(size: Size) -> Step:
    """Read the logits and write as much."""
    logits = batch(size).logits.detach()
    return lambda: torch.empty_like(logits).copy_(logits)


def not_compiled(size: Size) -> Step:
    """Focal loss piece by piece, on whatever device."""
    step = own("focal", size)

    def run() -> Tensor:
        with compiled_formulas(False):
            return step()

    return run


PEERS: dict[str, Callable[[Size], Step]] = {
    "torchvision focal": torchvision_focal,
    "mmdetection ghm": mmdetection_ghm,
    "focal, not compiled": not_compiled,
    "copy": copy,
}


def make(name: str, size: Size) -> Step:
    """A step by the name that the table has."""
    return PEERS[name](size) if name in PEERS else own(name, size)


def seconds(step: Step, device: str) -> float:
    """Of one step: of the processor in this process, or of the device."""
    if device != "cpu":
        torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        return time.perf_counter() - start
    start = time.process_time()
    step()
    return time.process_time() - start


def extra_memory(name: str, size: Size) -> float:
    """Peak of a step beyond what was held before it, in MiB; on a processor on Linux only."""
    as_in_training()
    small = make(name, size._replace(images=1, anchors=64))
    small()  # what a first call loads is not the loss's
    step = make(name, size)
    if size.device == "cpu":
        return extra_memory_of(step)
    step()  # compiles
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--anchors", type=int, default=163206, help="of each image")
    parser.add_argument("--classes", type=int, default=80)
    others = sorted({*LOSSES.points, *OTHER_ARGUMENTS} - {"focal"})
    parser.add_argument("--losses", nargs="+", default=["focal", *others])
    parser.add_argument("--peers", nargs="*", choices=PEERS, help="on a processor torchvision's and mmdetection's")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    options = parser.parse_args()
    as_in_training()
    on_device = options.device != "cpu"
    size = Size(options.images, options.anchors, options.classes, options.device, getattr(torch, options.dtype))
    peers = options.peers or (list(PEERS) if on_device else ["torchvision focal", "mmdetection ghm"])
    names = [*peers, *options.losses]
    if on_device:
        names = [name for name in names if _fits(name, size)]
    print(machine(options.device))
    logits = size.images * size.anchors * size.classes * size.dtype.itemsize / 2**20
    print(
        f"{size.images} x {size.anchors:,} anchors x {size.classes:,} classes, {options.dtype}, "
        f"logits {logits:.0f} MiB\n"
    )
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(options.rounds + 1):
        for name in names:
            step = make(name, size)  # of one at a time, so that all find the memory alike
            if on_device:
                step()  # finds the memory that it needs
            taken = seconds(step, options.device)
            if turn:  # the first round warms up
                times[name].append(taken)
    memory = {}
    if on_device or CLEAR.exists():
        for name in names:
            with get_context("spawn").Pool(1) as pool:
                memory[name] = pool.apply(extra_memory, (name, size)) / logits
    over = [name for name in ("torchvision focal", "mmdetection ghm") if name in names]
    below = [name for name in ("focal", "copy") if name in names]
    heads = ["ms", *[f"less time than {name}" for name in over], *[f"over {name}" for name in below], "extra memory"]
    print("| loss | " + " | ".join(heads) + " |")
    print("|---" * (len(heads) + 1) + "|")
    for name in names:
        cells = [
            name,
            f"{1000 * statistics.median(times[name]):.1f}",
            *[_ratio(times[peer], times[name]) for peer in over],
            *[_ratio(times[name], times[peer]) for peer in below],
            f"{memory[name]:.2f} x" if name in memory else "",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)
        beside = "mmdetection ghm" if name == "ghm" and "mmdetection ghm" in times else "torchvision focal"
        if name not in PEERS and beside in times:
            parts = [memory[one] * logits for one in (name, beside) if one in memory]
            item = f"{name}, {size.images} x {size.anchors:,} x {size.classes:,}, {options.dtype}"
            report(item, beside, times[name], times[beside], parts)


def _fits(name: str, size: Size) -> bool:
    try:
        make(name, size)()
    except torch.cuda.OutOfMemoryError:
        print(f"{name} does not fit the memory of the device.")
        return False
    return True


def _ratio(above: list[float], below: list[float]) -> str:
    return spread([a / b for a, b in zip(above, below, strict=True)])


if __name__ == "__main__":
    main()
