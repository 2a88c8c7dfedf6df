"""The measurements of ``gpu.py``, by part.

The first line of a part's file lists its items. Each further line is one item with its result, its error, or the reason
why it was skipped.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import time
import warnings
from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
import torch._inductor.config
from evaluation import make_images, with_metric
from losses import PEERS, Size, extra_memory, make, prepared, seconds
from matching import WAYS as MATCHERS
from matching import anchors_of, objects
from measuring import as_in_training, extra_memory_of, free, kernel_time
from postprocess import WAYS as POSTPROCESSORS
from postprocess import detect, detector, outputs
from step import NAMES, largest_batch, measure, measured, training_step
from step import Size as StepSize
from torch import Tensor

from lit_dense.functional import plain_path
from lit_dense.functional.fused.anchor_loss import compiled_formulas
from lit_dense.losses import LOSSES
from lit_dense.metrics import DetectionMAP
from lit_dense.testing.host_sync import host_reads

ROOT = Path(__file__).parents[1]
RANKING = frozenset({"ap", "alrp", "rs"})
"""Losses that sort all logits of the batch and have no formula to compile."""
LONG_TESTS = "test_anchor_loss_chunks.py"
"""The file whose tests compile every loss; it runs last, because the time may not suffice for it."""
DTYPES = ["bfloat16", "float32"]
FEW_LOSSES = ["focal", "ghm", "softmax"]
PROCESSES = min(14, max(1, (os.cpu_count() or 1) - 2))
"""Processes that compile at the same time on a GPU, in the parts that measure no speed."""
AGREEMENT = {"float32": 1e-5, "bfloat16": 1e-2}
"""Largest difference between compiled and plain numbers, relative to the largest number."""

Item = dict[str, Any]


def plan(part: str, device: str, quick: bool) -> list[Item]:
    """List the items of a part, the most important ones first."""
    names = FEW_LOSSES[:2] if quick else ["focal", *sorted(set(LOSSES.points) - {"focal"})]
    classes = [5] if quick else [80, 1203]
    dtypes = DTYPES[1:] if quick and device == "cpu" else DTYPES
    batches, pixels = ([1, 2], 64) if quick else ([8, 16], 800)
    if part == "tests":
        return [{"tests": "pytest -m gpu"}]
    if part == "agreement":
        compiled = [name for name in names if name not in RANKING]
        return [{"loss": name, "dtype": dtype, "classes": 5 if quick else 80} for dtype in dtypes for name in compiled]
    if part == "losses":
        peers = [name for name in PEERS if name in ("copy", "torchvision focal", "focal, not compiled")]
        few = ["copy", *sorted(set(peers) - {"copy"}), *FEW_LOSSES[: len(names)]]
        sizes = [(b, c, d) for b in batches for d in dtypes for c in classes]
        rows = [(name, *size) for size in sizes for name in few]
        rows += [(name, batches[0], classes[0], d) for d in dtypes for name in names if name not in few]
        anchors = 5000 if quick else 120087
        return [{"loss": name, "images": b, "anchors": anchors, "classes": c, "dtype": d} for name, b, c, d in rows]
    if part == "steps":
        return [
            {"model": name, "images": images, "pixels": pixels, "classes": number, "dtype": dtype}
            for number in classes
            for dtype in dtypes
            for images in batches
            for name in NAMES
        ]
    if part == "largest":
        limits = {"within": 1, "most": 2} if device == "cpu" else {"within": 4, "most": 512}
        return [
            {"model": m, "pixels": pixels, "classes": c, "dtype": dtypes[0], **limits} for c in classes for m in NAMES
        ]
    if part == "matching":
        return [{"objects": number, "pixels": pixels} for number in ([7] if quick else [7, 100, 500])]
    if part == "postprocess":
        return [
            {"images": images, "pixels": pixels, "classes": c, "dtype": dtype, "threshold": 0.05, "background": -4.6}
            for c in classes
            for dtype in dtypes
            for images in batches
        ]
    if part == "evaluation":
        metrics = ["DetectionMAP", "torchmetrics, faster-coco-eval"]
        images = 50 if quick else 500
        return [{"metric": m, "images": images, "detections": 100, "classes": c} for c in classes for m in metrics]
    raise ValueError(part)


def gpu_tests(item: Item, device: str, left: float) -> Item:
    """Outcomes of the tests that need a GPU; tests that do not finish in time are cut off."""
    files = [file for file in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in file.read_text()]
    files.sort(key=lambda file: file.name == LONG_TESTS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-v",
        "--tb=line",
        "-p",
        "no:cacheprovider",
        *(["-n", str(PROCESSES)] if device != "cpu" and find_spec("xdist") else []),
        *map(str, files),
    ]
    start, cut = time.perf_counter(), False
    env = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "1"}  # else each of the processes starts as many again
    kwargs = {"cwd": ROOT, "env": env, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    try:
        output = subprocess.run(command, timeout=max(1.0, left), **kwargs).stdout
    except subprocess.TimeoutExpired as error:
        output, cut = error.stdout or b"", True
    text = output.decode(errors="replace")
    print(text)  # the part's log
    return {**outcomes(text), "cut off": cut, "s": time.perf_counter() - start}


def outcomes(output: str) -> Item:
    """Count the outcomes in what ``pytest -v`` prints, also if it was cut off; name the failed tests."""
    # With several processes (pytest-xdist) a line begins with the process and the outcome: the same form is made of it.
    output = re.sub(r"^\[gw\d+\] \[ *\d+%\] (\w+) (\S.*?) *$", r"\2 \1", output, flags=re.MULTILINE)
    kinds = {kind: re.findall(rf"^(\S+::.+?) {kind}\b", output, re.MULTILINE) for kind in ("PASSED", "FAILED", "ERROR")}
    skipped = re.findall(r"^\S+::.+? SKIPPED\b", output, re.MULTILINE)
    broken = re.findall(r"^ERROR (?:collecting )?(\S+)", output, re.MULTILINE)
    failed = list(dict.fromkeys([*kinds["FAILED"], *kinds["ERROR"], *broken]))
    return {"passed": len(kinds["PASSED"]), "failed": len(failed), "skipped": len(skipped), "failed tests": failed}


def graphs() -> int:
    """Graphs compiled by this process until now."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def agreement(item: Item, device: str, left: float) -> Item:
    """Compiled numbers of a loss beside those of autograd, seconds of compilation, and recompilations."""
    anchors = 500 if device == "cpu" else 300_000  # kernels are made for a power of two: the same as for 8 images
    dtype = getattr(torch, item["dtype"])
    sizes = [Size(2, number, item["classes"], device, dtype) for number in (anchors, anchors + 3001)]
    before = graphs()
    with compiled_formulas():
        start = time.perf_counter()
        compiled = values_and_gradient(item["loss"], sizes[0])
        first = time.perf_counter() - start
        start = time.perf_counter()
        values_and_gradient(item["loss"], sizes[0])
        second = time.perf_counter() - start
        number = graphs() - before
        values_and_gradient(item["loss"], sizes[1])  # another number of anchors
    again = graphs() - before - number
    with plain_path():
        plain = values_and_gradient(item["loss"], sizes[0])
    far = [relative_difference(*pair) for pair in zip(compiled, plain, strict=True)]
    return {
        "compile s": max(0.0, first - second),
        "graphs": number,
        "recompilations": again,
        "difference of values": far[0],
        "difference of gradient": far[1],
        "agrees": all(one <= AGREEMENT[item["dtype"]] for one in far),
    }


def values_and_gradient(name: str, size: Size) -> tuple[Tensor, Tensor]:
    """Values of a fresh loss and the gradient of their weighted sum."""
    loss, samples = prepared(name, size)
    values = loss(samples.logits, samples.labels, samples)
    weights = torch.linspace(0.5, 2, len(values), device=values.device)
    (gradient,) = torch.autograd.grad((values * weights).sum(), samples.logits)
    if size.device != "cpu":
        torch.cuda.synchronize()
    return values.detach().float(), gradient.float()


def relative_difference(ours: Tensor, expected: Tensor) -> float:
    """Largest difference of two tensors, relative to the largest expected number; NaN if either has one."""
    return float((ours - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


def loss_part(item: Item, device: str, left: float) -> Item:
    """Time, memory and synchronisations of a loss, forward and backward to the logits."""
    size = Size(item["images"], item["anchors"], item["classes"], device, getattr(torch, item["dtype"]))
    before = graphs()
    step = make(item["loss"], size)
    step()  # compiles
    milliseconds = timed(step, device)
    waits = synchronisations(step, device)
    number = graphs() - before
    kernels = {} if device == "cpu" else {"kernels, ms": kernel_time(step)}
    del step
    free(device)
    logits = size.images * size.anchors * size.classes * size.dtype.itemsize / 2**20
    extra = extra_memory(item["loss"], size) / logits
    counts = {"graphs": number, "synchronisations": waits, "extra memory over logits": extra}
    return {"ms": milliseconds, **kernels, **counts}


def whole_step(item: Item, device: str, left: float) -> Item:
    """Time, memory and synchronisations of a whole training step."""
    dtype = getattr(torch, item["dtype"])
    steps = 1 if device == "cpu" else 3
    size = StepSize(item["images"], item["pixels"], item["classes"], steps, device, dtype)
    step, marks = training_step(item["model"], size)
    first = measured(step, marks, size)
    runs = [measured(step, marks, size._replace(steps=1)) for _ in range(0 if device == "cpu" else 2)] or [first]
    return {
        "ms": 1000 * statistics.median(run.seconds for run in runs),
        "head and loss, ms": 1000 * statistics.median(run.head for run in runs),
        "MiB": first.peak,  # gradients are held before the later runs
        "synchronisations": synchronisations(step, device),
    }


def largest(item: Item, device: str, left: float) -> Item:
    """The largest batch that fits the memory, up to a few images."""
    size = StepSize(1, item["pixels"], item["classes"], 1, device, getattr(torch, item["dtype"]))

    def fits(images: int) -> bool:
        try:
            measure(item["model"], size._replace(images=images))
        except torch.cuda.OutOfMemoryError:
            return False
        finally:
            free(device)
        return True

    # Memory grows evenly with the images: two small batches tell where the limit is, and few large ones are tried.
    if device == "cpu":
        first = 1
    else:
        few, more = (measure(item["model"], size._replace(images=images)).peak for images in (4, 12))
        free(device)
        memory = torch.cuda.mem_get_info()[0] / 2**20
        first = int(4 + 8 * (memory - few) / (more - few)) - item["within"]
    return {"largest batch": largest_batch(fits, first, item["within"], item["most"])}


def matching(item: Item, device: str, left: float) -> Item:
    """Time and memory of matching one image's anchors."""
    pixels = item["pixels"]
    anchors = anchors_of(pixels, pixels).to(device)
    gt_boxes = objects(item["objects"], pixels, pixels, min(10, pixels / 8), pixels / 2).to(device)
    steps = {name: partial(match, anchors, gt_boxes) for name, match in MATCHERS.items()}
    first, second = (step() for step in steps.values())
    return {"anchors": len(anchors), **beside(steps, device), "equal": torch.equal(first, second)}


def postprocess(item: Item, device: str, left: float) -> Item:
    """Time and memory from the outputs of a batch to its detections."""
    size, dtype = (item["pixels"], item["pixels"]), getattr(torch, item["dtype"])
    levels, anchors, sizes = outputs(size, item["classes"], item["background"], 30)
    images = item["images"]
    batch = {key: [t.to(device, dtype).repeat(images, 1, 1) for t in tensors] for key, tensors in levels.items()}
    given = batch, [[level.to(device) for level in anchors[0]]] * images, sizes * images
    model = detector(item["classes"], item["threshold"]).to(device)
    steps = {name: partial(detect, name, model, given) for name in POSTPROCESSORS}
    with torch.autocast(device, dtype, enabled=dtype != torch.float32):  # torchvision's NMS takes no bfloat16
        first, second = (step() for step in steps.values())
        equal = all(torch.equal(a[key], b[key]) for a, b in zip(first, second, strict=True) for key in a)
        return {**beside(steps, device), "equal": equal}


def evaluation(item: Item, device: str, left: float) -> Item:
    """Seconds of a metric on images whose tensors are on the device."""
    preds, targets = make_images(Namespace(**item))
    moved = [[{key: t.to(device) for key, t in one.items()} for one in images] for images in (preds, targets)]
    own = item["metric"] == "DetectionMAP"
    if own:
        metric: torch.nn.Module = DetectionMAP([str(k) for k in range(item["classes"])])
    else:
        from torchmetrics.detection import MeanAveragePrecision

        metric = MeanAveragePrecision(backend="faster_coco_eval")
        metric.warn_on_many_detections = False
    total, updates = with_metric(metric.to(device), *moved, own)
    return {"s": total, "of these for the batches": updates}


def beside(steps: dict[str, Callable[[], object]], device: str) -> Item:
    """Milliseconds, peaks of memory and synchronisations of two ways to compute the same."""
    found: Item = {}
    for name, step in steps.items():
        found[f"{name}, ms"] = timed(step, device)
    for name, step in steps.items():
        found[f"{name}, MiB"] = peak(step, device)
    for name, step in steps.items():
        found[f"{name}, synchronisations"] = synchronisations(step, device)
    return found


def timed(step: Callable[[], Any], device: str) -> float:
    """Median milliseconds of a step, after one that is not timed."""
    step()
    return 1000 * statistics.median(seconds(step, device) for _ in range(3 if device == "cpu" else 7))


def peak(step: Callable[[], object], device: str) -> float:
    """Largest memory during a step beyond what was held before, in MiB."""
    if device == "cpu":
        return extra_memory_of(step)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def synchronisations(step: Callable[[], object], device: str) -> int:
    """How often the CPU waits for the device in a step; on a CPU, operations that would make it wait."""
    if device == "cpu":
        return len(host_reads(step))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(warning.message) for warning in seen)


MEASURES: dict[str, Callable[[Item, str, float], Item]] = {
    "agreement": agreement,
    "tests": gpu_tests,
    "losses": loss_part,
    "steps": whole_step,
    "matching": matching,
    "postprocess": postprocess,
    "evaluation": evaluation,
    "largest": largest,
}


def run(part: str, items: list[Item], device: str, end: float, write: Callable[[Item], None]) -> None:
    """Measure the items; write each result, error or omission at once.

    Args:
        part: Key of :data:`MEASURES`.
        items: What to measure.
        device: Device of the tensors.
        end: Time of the monotonic clock from which no item begins.
        write: Called with one row for each item.
    """
    if part != "agreement" or device == "cpu":
        for item in items:
            write(row_of(part, item, device, end))
        return
    with ProcessPoolExecutor(PROCESSES, get_context("spawn"), initializer=compile_in_this_process) as pool:
        for future in as_completed([pool.submit(row_of, part, item, device, end) for item in items]):
            write(future.result())


def compile_in_this_process() -> None:
    """Start no further processes to compile in."""
    as_in_training()
    torch._inductor.config.compile_threads = 1


def row_of(part: str, item: Item, device: str, end: float) -> Item:
    """Measure one item; return it with its result, its error or the reason why it was skipped."""
    left = end - time.monotonic()
    if left <= 0:
        return {"item": item, "skipped": "out of time"}
    torch._dynamo.reset()  # else each call looks through the graphs of all former items
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", UserWarning)
        try:
            row = {"item": item, "result": MEASURES[part](item, device, left)}
        except Exception as error:  # whatever it is, the other items are still measured
            why = str(error).strip().split("\n")[0]
            row = {"item": item, "error": f"{type(error).__name__}: {why}"[:300]}
    told = [str(warning.message) for warning in seen if "Losses run uncompiled" in str(warning.message)]
    free(device)
    return row | ({"warnings": told} if told else {})


def serve(connection: Connection) -> None:
    """Measure the parts that are asked for until the connection ends, in a process group of its own.

    A request is the part, the device, whether sizes are small, the time of the monotonic clock from which no item
    begins, the file for the rows, and the file for all that is printed. The answer to each is "done".
    """
    as_in_training()
    while True:
        try:
            part, device, quick, end, path, log = connection.recv()
        except EOFError:
            return
        with log.open("w") as file:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
        write = partial(append, path)
        items = plan(part, device, quick)
        write({"plan": items})
        run(part, items, device, end, write)
        sys.stdout.flush()
        connection.send("done")


def append(path: Path, row: Item) -> None:
    """Add a row to a file and to the disk, so that nothing ends it."""
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())
