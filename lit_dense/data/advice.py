"""Figures of a training set, and rules that derive from them what to compare.

Each rule is a function of :class:`Figures`. docs/choosing.md describes the figures, the limits and the methods.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core.array_types import Bools, Doubles, Ints
from .coco_data import CocoData

MOST = 3  # comparisons that are suggested at once
IMBALANCED = 10.0  # boxes of the most frequent class for each box of the rarest one
TAIL_CLASSES, TAIL_IMBALANCE = 50, 100.0
SMALL_SIDE, SMALL_SHARE = 32.0, 0.3
OVERLAP, CROWDED_SHARE = 0.3, 0.1
EMPTY_SHARE = 0.5
UNEVEN = 0.5  # standard deviation of the number of objects of an image, as a share of its mean
FEW_IMAGES = 500
CHUNK_PAIRS, MAX_PAIRS = 1_000_000, 100_000_000  # most pairs of boxes whose IoU is computed at once, and in all


class InputSize(NamedTuple):
    """Rule by which a model scales images: to a shorter side within a longest one, or to squares.

    Args:
        min_size: Length of the shorter side, in pixels.
        max_size: Largest length of the longer side, or the side of the square, in pixels.
        squares: Whether images are scaled to squares.
    """

    min_size: int
    max_size: int
    squares: bool = False

    def scales(self, sizes: Ints) -> Doubles:
        """Return the factors of height and width [I, 2] of images with sizes [I, 2]."""
        if self.squares:
            return self.max_size / sizes
        scale = np.minimum(self.min_size / sizes.min(1), self.max_size / sizes.max(1))
        return np.stack([scale, scale], 1)


class Figures(NamedTuple):
    """Figures of a training set; crowd boxes and ignore regions are not counted.

    Args:
        images: Number of images.
        empty_share: Share of images without objects.
        boxes: Number of boxes.
        classes: Number of classes with boxes.
        absent: Number of classes without boxes.
        imbalance: Boxes of the most frequent class divided by those of the rarest class that has boxes.
        frequent: Name of the most frequent class.
        rare: Name of the rarest class that has boxes.
        rare_images: Share of the images with objects that contain the rarest class.
        relative_side: Median side of an object (root of its area) as a share of the image's.
        input_side: Median side of an object at the model's input size, in pixels.
        small_share: Share of objects with a side below 32 pixels at the model's input size.
        crowded_share: Share of objects that overlap another one of the image by an IoU of at least 0.3.
        objects_per_image: Mean number of objects of an image.
        objects_spread: Standard deviation of the number of objects of an image, as a share of its mean.
        divided_by_image: Whether the model divides the loss of each image by the positives of this image.
        federated: Whether the data says which classes each image is annotated for, as LVIS does.
        input_size: The model's input size.
    """

    images: int
    empty_share: float
    boxes: int
    classes: int
    absent: int
    imbalance: float
    frequent: str
    rare: str
    rare_images: float
    relative_side: float
    input_side: float
    small_share: float
    crowded_share: float
    objects_per_image: float
    objects_spread: float
    divided_by_image: bool
    federated: bool
    input_size: InputSize


class Trial(NamedTuple):
    """One run of a comparison: its name, and the configuration that it changes."""

    name: str
    settings: dict[str, dict[str, Any]]


class Advice(NamedTuple):
    """One suggested comparison with the configuration as it is.

    Args:
        topic: Short name, also of the comparison's folder.
        reason: The figures that suggest it.
        page: Section of docs/choosing.md.
        trials: The runs to compare, in order of preference.
    """

    topic: str
    reason: str
    page: str
    trials: tuple[Trial, ...]


def measure(data: CocoData, input_size: InputSize, divided_by_image: bool = True) -> Figures:
    """Compute the figures of a training set.

    Args:
        data: The training set, after repairs, with categories.
        input_size: The model's input size.
        divided_by_image: Whether the model divides the loss of each image by the positives of this image.
    """
    counts = data.class_counts(np.array([category["id"] for category in data.categories]))
    instances = counts.instances.numpy()
    present = np.flatnonzero(instances)
    objects = ~data.iscrowd
    boxes, image_index = data.boxes[objects].astype(np.float64), data.image_index[objects]
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    side = np.sqrt(width * height)
    relative = side / np.sqrt(data.sizes.prod(1))[image_index]
    scaled = side * np.sqrt(input_size.scales(data.sizes).prod(1))[image_index]
    most = instances.argmax() if len(instances) else 0
    least = present[instances[present].argmin()] if len(present) else 0
    names = [category["name"] for category in data.categories] or [""]
    of_images = np.bincount(image_index, minlength=len(data))
    return Figures(
        images=len(data),
        empty_share=1 - (counts.num_annotated or 0) / max(1, len(data)),
        boxes=len(boxes),
        classes=len(present),
        absent=len(instances) - len(present),
        imbalance=float(instances[most] / instances[least]) if len(present) else 1.0,
        frequent=names[most],
        rare=names[least],
        rare_images=float(counts.frequencies[least]) if len(present) else 0.0,
        relative_side=float(np.median(relative)) if len(boxes) else 0.0,
        input_side=float(np.median(scaled)) if len(boxes) else 0.0,
        small_share=float((scaled < SMALL_SIDE).mean()) if len(boxes) else 0.0,
        crowded_share=_crowded_share(boxes, image_index),
        objects_per_image=float(of_images.mean()) if len(data) else 0.0,
        objects_spread=float(of_images.std() / of_images.mean()) if len(boxes) else 0.0,
        divided_by_image=divided_by_image,
        federated=data.federated is not None,
        input_size=input_size,
    )


def _crowded_share(boxes: Doubles, image_index: Ints) -> float:
    """Return the share of boxes that overlap another one of their image by an IoU of at least 0.3.

    If all images have more pairs than ``MAX_PAIRS``, images in regular intervals are used.
    """
    starts = np.flatnonzero(np.diff(image_index, prepend=-1))
    counts = np.diff(starts, append=len(boxes))
    interval = max(1, -(-int((counts**2).sum()) // MAX_PAIRS))
    crowded = [_overlapping(boxes[s : s + n]) for s, n in zip(starts[::interval], counts[::interval], strict=True)]
    return float(np.concatenate(crowded).mean()) if crowded else 0.0


def _overlapping(boxes: Doubles) -> Bools:
    """Return whether a box overlaps another one by an IoU of at least 0.3, bool [N]; in chunks of rows."""
    overlapping = np.zeros(len(boxes), bool)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    step = max(1, CHUNK_PAIRS // len(boxes))
    for first in range(0, len(boxes) if len(boxes) > 1 else 0, step):
        rows = boxes[first : first + step]
        inner = np.minimum(rows[:, None, 2:], boxes[None, :, 2:]) - np.maximum(rows[:, None, :2], boxes[None, :, :2])
        common = inner.clip(min=0).prod(2)
        hits = common >= OVERLAP * (area[first : first + step, None] + area - common)
        hits[np.arange(len(rows)), np.arange(first, first + len(rows))] = False
        overlapping[first : first + step] = hits.any(1)
    return overlapping


def advise_federated(figures: Figures) -> Advice | None:
    """Suggest the federated loss, if images are annotated for some classes only."""
    if not figures.federated:
        return None
    return Advice(
        "federated",
        "The data lists the classes that each image is annotated for: other classes may be in it without a label.",
        "missing-labels",
        (Trial("federated", {"model": {"loss": "federated"}}),),
    )


def advise_uneven(figures: Figures) -> Advice | None:
    """Suggest to divide by the positives of the batch, if the number of objects differs between images."""
    if not _uneven(figures):
        return None
    return Advice(
        "uneven_images",
        f"Images have {figures.objects_per_image:.1f} objects on average, with a standard deviation of "
        f"{figures.objects_spread:.0%} of the mean, and the loss of each image is divided by its own positives.",
        "images-with-different-numbers-of-objects",
        (Trial("batch_normalizer", {"model": {"normalizer": "batch"}}),),
    )


def _uneven(figures: Figures) -> bool:
    return figures.divided_by_image and figures.objects_spread >= UNEVEN


def advise_imbalance(figures: Figures) -> Advice | None:
    """Suggest class weights and samplers, or losses for a long tail, if the class counts differ."""
    tail = figures.classes >= TAIL_CLASSES and figures.imbalance >= TAIL_IMBALANCE
    if not tail and (figures.imbalance < IMBALANCED or figures.classes < 2):
        return None
    threshold = float(f"{4 * figures.rare_images:.2g}")  # the rarest class is repeated twice
    sampler = {"class_path": "repeat_factor", "init_args": {"threshold": threshold}}
    # a class in more than a quarter of the images cannot be repeated twice
    repeated = [Trial("repeat_factor", {"data": {"sampler": sampler}})] if figures.rare_images <= 0.25 else []
    losses = [Trial(name, {"model": {"loss": name}}) for name in ("eql_v2", "seesaw")]
    weights = Trial("class_weights", {"model": {"class_weights": "balanced"}})
    aware = Trial("class_aware", {"data": {"sampler": "class_aware"}})
    if _uneven(figures):  # with both, the AP of the rare classes was twice that of the baseline (docs/evidence.md)
        aware = Trial("class_aware_batch", {**aware.settings, "model": {"normalizer": "batch"}})
    return Advice(
        "long_tail" if tail else "imbalance",
        f"{figures.frequent} has {figures.imbalance:,.0f} times the boxes of {figures.rare}, which is in "
        f"{figures.rare_images:.1%} of the images with objects.",
        "a-long-tail-of-hundreds-of-classes" if tail else "a-rare-class-is-not-found",
        (*repeated, *losses) if tail else (weights, aware, *repeated),
    )


def advise_small(figures: Figures) -> Advice | None:
    """Suggest larger images, and matching for small objects, if many objects are small."""
    if figures.small_share < SMALL_SHARE:
        return None
    smallest, largest, squares = figures.input_size
    larger = {"min_size": round(1.5 * smallest), "max_size": round(1.5 * largest)}
    trials = [] if squares else [Trial("larger", {"model": larger})]
    return Advice(
        "small_objects",
        f"{figures.small_share:.0%} of the objects have a side below 32 pixels at the model's input size.",
        "small-objects",
        (*trials, Trial("nwd_assigner", {"model": {"assigner": "nwd"}})),
    )


def advise_crowded(figures: Figures) -> Advice | None:
    """Suggest a higher threshold of non-maximum suppression, and other matching, if objects overlap."""
    if figures.crowded_share < CROWDED_SHARE:
        return None
    return Advice(
        "crowded",
        f"{figures.crowded_share:.0%} of the objects overlap another one by an IoU of at least 0.3.",
        "crowded-scenes",
        (
            Trial("nms_60", {"model": {"nms_thresh": 0.6}}),
            Trial("simota", {"model": {"assigner": "simota"}}),
            Trial("dw", {"model": {"weighters": ["dw"], "assigner": None, "normalizer": None}}),  # it decides both
        ),
    )


def advise_empty(figures: Figures) -> Advice | None:
    """Suggest a smaller share of images without objects, if most images have none."""
    if figures.empty_share < EMPTY_SHARE:
        return None
    return Advice(
        "empty_images",
        f"{figures.empty_share:.0%} of the images have no objects.",
        "many-false-positives",
        tuple(Trial(f"empty_{share}", {"data": {"empty_share": share / 100}}) for share in (10, 30)),
    )


def advise_few(figures: Figures) -> Advice | None:
    """Suggest augmentation, if few images have objects."""
    with_objects = round(figures.images * (1 - figures.empty_share))
    if with_objects >= FEW_IMAGES:
        return None
    pasted = [Trial("copy_paste", {"data": {"augmentation": ["copy_paste"]}})]
    mosaic = [Trial("mosaic", {"data": {"augmentation": ["mosaic"]}})] if figures.small_share < SMALL_SHARE else []
    return Advice("few_images", f"Only {with_objects:,} images have objects.", "few-images", (*pasted, *mosaic))


RULES: tuple[Callable[[Figures], Advice | None], ...] = (
    advise_federated,
    advise_uneven,
    advise_imbalance,
    advise_small,
    advise_crowded,
    advise_empty,
    advise_few,
)
"""All rules, the most important first."""


def advise(figures: Figures) -> list[Advice]:
    """Return what all rules suggest, the most important first."""
    return [advice for rule in RULES if (advice := rule(figures)) is not None]


def findings(figures: Figures) -> str:
    """Format the figures, each with what it points at."""
    f, size = figures, figures.input_size
    scaled = f"squares of {size.max_size}" if size.squares else f"shorter side {size.min_size}, longer {size.max_size}"
    lines = [
        ("images", f"{f.images:,}, without objects {f.empty_share:.1%}", (advise_few, advise_empty)),
        ("boxes", f"{f.boxes:,} of {f.classes:,} classes; classes without boxes: {f.absent:,}", ()),
        ("imbalance", f"{f.imbalance:,.1f} ({f.frequent} : {f.rare})", (advise_imbalance,)),
        (
            "objects",
            f"{f.objects_per_image:.1f} in an image, standard deviation {f.objects_spread:.0%}",
            (advise_uneven,),
        ),
        ("object side", f"median {f.relative_side:.1%} of the image's, {f.input_side:.0f} pixels at {scaled}", ()),
        ("small objects", f"{f.small_share:.1%} below {SMALL_SIDE:.0f} pixels at this size", (advise_small,)),
        ("crowded", f"{f.crowded_share:.1%} overlap another object by an IoU of 0.3 or more", (advise_crowded,)),
    ]
    return "\n".join(f"  {name:14}  {text}{_pointer(rules, f)}" for name, text, rules in lines)


def _pointer(rules: Sequence[Callable[[Figures], Advice | None]], figures: Figures) -> str:
    if not rules:
        return ""
    topics = [advice.topic for rule in rules if (advice := rule(figures)) is not None]
    if topics:
        return f"  -> {', '.join(topics)}"
    return ": nothing points at imbalance" if advise_imbalance in rules else ""
