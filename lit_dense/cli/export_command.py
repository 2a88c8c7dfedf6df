"""The command ``lit-dense export``: load a checkpoint, write a file, and compare the file with the model."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import UsageError, check_range
from ..data import CocoDataModule
from ..data.label_map import match_labels, offered_categories
from ..export.graph import DetectionGraph
from ..export.verification import Difference, as_detections, check, compare, letterbox
from ..export.writers import SUFFIXES, Run, export
from ..metrics import DetectionMAP
from ..training import LitDetector

NOISE_IMAGES = 4
"""Number of random images for the comparison if there is no validation set."""
CANDIDATES = 300
"""Number of candidates of an image that are compared without non-maximum suppression."""
LARGEST_AP_LOSS = 0.01
"""A larger loss of AP by the input size is told."""
Detections = dict[str, Tensor]
Sample = tuple[Tensor, dict[str, Any]]
"""An image [3, H, W], uint8, and its target."""


def run_export(
    model: LitDetector,
    datamodule: CocoDataModule | None,
    ckpt_path: Path,
    format: str,
    output: Path | None,
    size: list[int] | None,
    nms: bool,
    images: int,
) -> str:
    """Export the detector of a checkpoint, compare file and model, and return a report.

    Args:
        model: A module with the arguments of the checkpoint.
        datamodule: Data whose validation images are compared; without validation images random ones are used.
        ckpt_path: The checkpoint.
        format: Name of the format.
        output: The file; by default beside the checkpoint.
        size: Height and width of the input images; one number for squares; by default the size to which the model
            scales most validation images or, without validation images, its ``export_size``.
        nms: Whether the file applies non-maximum suppression.
        images: Largest number of validation images.

    Raises:
        UsageError: If the detector or the format is not supported, the output is a folder, or the file does not compute
            the same detections.
    """
    beside = ckpt_path.with_suffix(SUFFIXES.get(format, ""))
    file = output or beside
    if file.is_dir():
        raise UsageError(f"--output={file} is a folder: give a file, such as --output={file / beside.name}.")
    check_range("export", "images", images, 0)
    load_weights(model, ckpt_path)
    originals = list(validation_images(datamodule, images))
    graph = model.export_graph(image_size(model, size, [image.shape for image, _ in originals]), nms)
    run = export(graph, file, format, model.column_names)
    lines = [
        f"{file}: {size_of(file) / 2**20:.1f} MiB, {format}, {type(model.model).__name__}, "
        f"input uint8 [{'1' if nms else 'N'}, 3, {graph.size[0]}, {graph.size[1]}]"
    ]
    if not nms:
        difference = compare_candidates(graph, run)
        lines += report(difference, "random images")
        check(difference, str(file))
        return "\n".join(lines)
    samples = [on_canvas(image, target, graph.size) for image, target in originals]
    noise = not samples
    if noise:
        generator = torch.Generator().manual_seed(0)
        shape = (3, *graph.size)
        samples = [
            (torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator), {}) for _ in range(NOISE_IMAGES)
        ]
    expected, found = detections_of(model, graph, run, [image for image, _ in samples])
    difference = compare(expected, found, graph.size)
    which = "random images; give --config or --data for validation images" if noise else "validation images"
    lines += report(difference, which)
    if not noise:
        lines += report_ap(model, datamodule, originals, samples, expected, found)
    check(difference, str(file))
    return "\n".join(lines)


def size_of(file: Path) -> int:
    """Return the bytes of an exported file and of its weights, if they are in a file of their own, as OpenVINO's are.

    Args:
        file: The file.
    """
    weights = file.with_suffix(".bin")
    return file.stat().st_size + (weights.stat().st_size if file.suffix == ".xml" and weights.is_file() else 0)


def load_weights(model: LitDetector, path: Path) -> None:
    """Load a checkpoint into a module, as Lightning's Trainer does.

    Args:
        model: A module with the arguments of the checkpoint.
        path: The checkpoint.
    """
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    model.on_load_checkpoint(checkpoint)
    model.load_state_dict(checkpoint["state_dict"])
    model.eval()


def image_size(model: LitDetector, size: list[int] | None, shapes: Sequence[Sequence[int]] = ()) -> tuple[int, int]:
    """Return height and width of the exported input.

    Args:
        model: The module.
        size: One or two numbers; None for the size to which the model scales most of the images.
        shapes: Shapes of images, [3, H, W]. Without any, the default is the module's ``export_size``.

    Raises:
        UsageError: If there are more than two numbers, or one is not positive.
    """
    if size is None:
        resized = Counter(model.resized(shape[-2], shape[-1]) for shape in shapes)
        return resized.most_common(1)[0][0] if resized else model.export_size
    if not 1 <= len(size) <= 2 or min(size) < 1:
        raise UsageError(f"--size takes height and width in pixels, as --size='[480, 640]', or one number, not {size}.")
    return size[0], size[-1]


def validation_images(datamodule: CocoDataModule | None, number: int) -> Iterator[Sample]:
    """Yield evenly spaced validation images and their targets.

    Args:
        datamodule: The data.
        number: Largest number of images.
    """
    if datamodule is None or "val" not in datamodule.available:
        return
    datamodule.prepare_data()
    datamodule.setup("validate")
    loader: Any = datamodule.val_dataloader()
    dataset = loader.dataset
    for index in np.linspace(0, len(dataset) - 1, min(number, len(dataset))).round().astype(int).tolist():
        image, target = dataset[index]
        yield image.as_subclass(Tensor), {**target, "boxes": target["boxes"].as_subclass(Tensor)}


def on_canvas(image: Tensor, target: dict[str, Any], size: tuple[int, int]) -> Sample:
    """Scale an image into a canvas, and its target with it.

    Args:
        image: uint8 image [3, h, w].
        target: Its target.
        size: Height and width of the canvas.
    """
    canvas, factor = letterbox(image, size)
    return canvas, {**target, "boxes": target["boxes"] * factor, "area": target["area"] * factor**2}


@torch.no_grad()
def detections_of(
    model: LitDetector, graph: DetectionGraph, run: Run, images: list[Tensor]
) -> tuple[list[Detections], list[Detections]]:
    """Return the detections of the model and of the exported file.

    Args:
        model: The module.
        graph: What was exported.
        run: Runs the exported file.
        images: uint8 images [3, H, W].
    """
    expected, found = [], []
    for image in images:
        expected += model([image])
        found += as_detections(run(image.unsqueeze(0)), graph.score_thresh)
    return expected, found


@torch.no_grad()
def report_ap(
    model: LitDetector,
    datamodule: Any,
    originals: Sequence[Sample],
    canvases: Sequence[Sample],
    expected: list[Detections],
    found: list[Detections],
) -> list[str]:
    """Return the lines about the AP of model and file, and about the size of the input if it costs AP.

    Args:
        model: The module.
        datamodule: The data of the images.
        originals: The images as they are; the model scales them itself.
        canvases: The images as the file takes them.
        expected: Detections of the model in the canvases.
        found: Detections of the file in the canvases.
    """
    own = [detections for image, _ in originals for detections in model([image])]
    targets = [target for _, target in canvases]
    ap = mean_ap(model, datamodule, own, [target for _, target in originals])
    ours, theirs = (mean_ap(model, datamodule, detections, targets) for detections in (expected, found))
    lines = [f"AP on these images: model {ap:.4f}; on images of the file's size: model {ours:.4f}, file {theirs:.4f}"]
    if ap - theirs > LARGEST_AP_LOSS:
        height, width = canvases[0][0].shape[-2:]
        sizes = Counter(model.resized(*image.shape[-2:]) for image, _ in originals).most_common(3)
        listed = ", ".join(f"{h} x {w} ({count} images)" for (h, w), count in sizes)
        lines.append(
            f"The input size {height} x {width} costs {ap - theirs:.3f} AP: the model itself scales these images to "
            f"{listed} (height x width). Give --size; for images of several shapes, export a file for each."
        )
    return lines


@torch.no_grad()
def compare_candidates(graph: DetectionGraph, run: Run) -> Difference:
    """Compare the best candidates of a batch of three random images."""
    batch = torch.randint(0, 256, (3, 3, *graph.size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected, found = (as_detections([o[:, :CANDIDATES] for o in out], -1.0) for out in (graph(batch), run(batch)))
    return compare(expected, found, graph.size)


def mean_ap(model: LitDetector, datamodule: Any, detections: list[Detections], targets: list[dict[str, Any]]) -> float:
    """Compute the AP of detections.

    Args:
        model: The module.
        datamodule: The data of the targets.
        detections: Detections of each image; labels are columns.
        targets: Targets of each image; labels are those of the data.
    """
    labels = match_labels(model.categories, offered_categories(datamodule), model.num_classes or 0)
    metric = DetectionMAP(range(datamodule.num_classes))
    metric.update([labels.in_labels(d) for d in detections], targets)
    value = float(metric.compute()["map"])
    return value if value >= 0 else math.nan


def report(difference: Difference, which: str) -> list[str]:
    """Return the lines about a comparison.

    Args:
        difference: The difference of file and model.
        which: What the images were.
    """
    if not difference.detections and not difference.unmatched:
        return [
            f"Not compared: neither model nor file has a detection in {difference.images} {which}. Give --config with "
            "validation images, or a lower --model.score_thresh."
        ]
    return [
        f"Compared on {difference.images} {which}: {difference.detections} detections",
        f"Largest difference: score {difference.score:.1e}, box {difference.box:.1e} pixels; "
        f"{difference.unmatched} detections without a counterpart",
    ]
