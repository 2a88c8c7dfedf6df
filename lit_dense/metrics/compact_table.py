"""Detection tables in few bytes, for files that are kept in a repository.

Ground truth is stored exactly. A detection takes about five bytes:

* Its score: the logit is rounded to 1/1,024, which changes a score by less than 0.05 %.
* Its box, if it overlaps an object of its class: rounded to 1/16,384 of the extent of all boxes of the image. Where
  rounding would change a comparison of the IoU with one of COCO's ten thresholds, the box is exact.
* Its box, if it matches nothing at any threshold: rounded to 1/64 of the extent.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from .detection_table import CROWD, DETECTION, OBJECT, Array, DetectionTable

LOGIT_STEPS = 1024
"""Steps of a logit of 1."""
COARSE_STEPS, FINE_STEPS = 64, 64 * 256
"""Steps of the extent of the boxes of an image."""
NEAR = 0.4
"""Smallest IoU with an object of its class of a detection whose box is stored finely: below all thresholds."""
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)

_SMALLEST = 1e-7  # of a score and of its distance from 1, so that logits are finite
_PREFIX = "compact_"
_COLUMNS = ("images", "boxes", "labels", "kinds", "scores")


def save_compact(path: Path, table: DetectionTable, **others: Array) -> None:
    """Write a table to an ``.npz`` file in the compact form.

    Args:
        path: The file.
        table: The table.
        others: Arrays to add to the file; their names must not begin with ``compact_``.
    """
    np.savez_compressed(path, allow_pickle=False, **_pack(table), **others)


def load_compact(path: Path) -> DetectionTable:
    """Read a file of :func:`save_compact`.

    Args:
        path: The file.
    """
    with np.load(path, allow_pickle=False) as arrays:
        return _unpack({name.removeprefix(_PREFIX): arrays[name] for name in arrays if name.startswith(_PREFIX)})


def load_image_ids(path: Path) -> Array:
    """Read only the image ids of a file of :func:`save_compact`.

    Args:
        path: The file.
    """
    with np.load(path, allow_pickle=False) as arrays:
        ids: Array = arrays[f"{_PREFIX}image_ids"]
        return ids


def _pack(table: DetectionTable) -> dict[str, Array]:
    truth = table.where(table.kinds != DETECTION)
    found = table.of(DETECTION)
    logits = _logits(found.scores)
    order = np.lexsort((-logits, found.labels, found.images))
    found, logits = found.where(order), logits[order]
    extents = _extents(table)
    coarse, fine = (_codes(found, extents, steps) for steps in (COARSE_STEPS, FINE_STEPS))
    rounded = (_boxes(coarse, found.images, extents, COARSE_STEPS), _boxes(fine, found.images, extents, FINE_STEPS))
    precision = _precision(found, truth, *(replace(found, boxes=boxes) for boxes in rounded))
    high = np.where((precision > 0)[:, None], fine >> 8, coarse).astype(np.uint8)
    high[:, 2:] -= high[:, :2]  # sizes compress better than corners; unsigned integers wrap around
    arrays = {
        "image_ids": table.image_ids,
        "extents": extents,
        "counts": np.bincount(found.images, minlength=len(table.image_ids)).astype(np.int32),
        "labels": found.labels.astype(np.uint16),
        "logits": np.diff(logits, prepend=np.int16(0)),  # wraps around, as does the sum
        "precision": precision,
        "high": high.T,
        "low": (fine[precision > 0] & 255).astype(np.uint8).T,
        "exact": found.boxes[precision > 1],
        **{f"truth_{name}": getattr(truth, name) for name in _COLUMNS},
    }
    return {f"{_PREFIX}{name}": np.ascontiguousarray(array) for name, array in arrays.items()}


def _unpack(arrays: dict[str, Array]) -> DetectionTable:
    counts, precision = arrays["counts"], arrays["precision"]
    images = np.repeat(np.arange(len(counts)), counts)
    high = arrays["high"].T.copy()
    high[:, 2:] += high[:, :2]
    boxes = _boxes(high.astype(np.int64), images, arrays["extents"], COARSE_STEPS)
    near = precision > 0
    codes = (high[near].astype(np.int64) << 8) + arrays["low"].T
    boxes[near] = _boxes(codes, images[near], arrays["extents"], FINE_STEPS)
    boxes[precision > 1] = arrays["exact"]
    logits = np.cumsum(arrays["logits"], dtype=np.int16).astype(np.float64) / LOGIT_STEPS
    columns = {
        "images": images,
        "boxes": boxes,
        "labels": arrays["labels"].astype(np.int32),
        "kinds": np.full(len(images), DETECTION, np.int32),
        "scores": (1 / (1 + np.exp(-logits))).astype(np.float32),
    }
    joined = {name: np.concatenate([arrays[f"truth_{name}"], column]) for name, column in columns.items()}
    order = np.argsort(joined["images"], kind="stable")
    return DetectionTable(arrays["image_ids"], **{name: column[order] for name, column in joined.items()})


def _logits(scores: Array) -> Array:
    """Return rounded logits in steps, int16 [D]."""
    inside = scores.astype(np.float64).clip(_SMALLEST, 1 - _SMALLEST)
    steps: Array = np.round((np.log(inside) - np.log1p(-inside)) * LOGIT_STEPS).astype(np.int16)
    return steps


def _extents(table: DetectionTable) -> Array:
    """Return the smallest and the largest coordinate of the boxes of each image, float32 [I, 2]."""
    extents = np.tile(np.array([0, 1], np.float32), (len(table.image_ids), 1))
    np.minimum.at(extents[:, 0], table.images, table.boxes.min(1, initial=np.inf))
    np.maximum.at(extents[:, 1], table.images, table.boxes.max(1, initial=-np.inf))
    return extents


def _codes(rows: DetectionTable, extents: Array, steps: int) -> Array:
    """Return boxes as multiples of a part of the extent, int64 [D, 4]."""
    low, high = extents[rows.images].astype(np.float64).T[..., None]
    codes: Array = np.round((rows.boxes - low) / (high - low) * steps).astype(np.int64)
    return codes


def _boxes(codes: Array, images: Array, extents: Array, steps: int) -> Array:
    """Return the boxes of codes, float32 [D, 4]."""
    low, high = extents[images].astype(np.float64).T[..., None]
    boxes: Array = (low + codes * ((high - low) / steps)).astype(np.float32)
    return boxes


def _precision(found: DetectionTable, truth: DetectionTable, coarse: DetectionTable, fine: DetectionTable) -> Array:
    """Return the needed precision of each box: 0 coarse, 1 fine, 2 exact; uint8 [D].

    Args:
        found: The detections.
        truth: Ground truth of the same images.
        coarse: The detections with coarse boxes.
        fine: The detections with fine boxes.
    """
    objects = truth.of(OBJECT, CROWD)
    detections, others = _pairs(found, objects)
    exact, roughly, closely = (_iou(rows, objects, detections, others) for rows in (found, coarse, fine))
    precision = np.zeros(len(found.labels), np.uint8)
    precision[detections[np.maximum(exact, roughly) >= NEAR]] = 1
    changed = np.searchsorted(IOU_THRESHOLDS, exact, "right") != np.searchsorted(IOU_THRESHOLDS, closely, "right")
    precision[detections[changed]] = 2
    return precision


def _pairs(found: DetectionTable, objects: DetectionTable) -> tuple[Array, Array]:
    """Return all pairs of a detection and an object of the same image and class, as rows of both tables."""
    classes = 1 + max(int(found.labels.max(initial=0)), int(objects.labels.max(initial=0)))
    own, of_objects = (rows.images.astype(np.int64) * classes + rows.labels for rows in (found, objects))
    order = np.argsort(of_objects, kind="stable")
    first, after = (np.searchsorted(of_objects[order], own, side) for side in ("left", "right"))
    counts = after - first
    detections = np.repeat(np.arange(len(own)), counts)
    within = np.arange(len(detections)) - np.repeat(counts.cumsum() - counts, counts)
    return detections, order[first[detections] + within]


def _iou(found: DetectionTable, objects: DetectionTable, detections: Array, others: Array) -> Array:
    """Return the IoU of pairs; with a crowd it is the share of the detection inside it, as in COCO's evaluator."""
    first, second = found.boxes[detections].astype(np.float64), objects.boxes[others].astype(np.float64)
    sizes = np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2])
    inside = sizes.clip(0).prod(1)
    area, other = ((boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1) for boxes in (first, second))
    whole = np.where(objects.kinds[others] == CROWD, area, area + other - inside)
    overlaps: Array = np.divide(inside, whole, out=np.zeros_like(inside), where=whole > 0)
    return overlaps
