"""AP of resampled images, for intervals: the bootstrap of Efron, https://doi.org/10.1214/aos/1176344552."""

from typing import NamedTuple

import numpy as np

from .backends import ClassMatches, with_backend
from .detection_table import Array, DetectionTable
from .evaluation import IOU_50, RECALLS

_ELEMENTS = 4_000_000  # of a temporary array


class Resampled(NamedTuple):
    """AP of each of S samples: ``ap`` and ``ap_50``, -1 where no sampled image has an object, float64 [S]."""

    ap: Array
    ap_50: Array


def resampled_ap(rows: DetectionTable, counts: Array, num_classes: int, max_detections: int = 100) -> Resampled:
    """COCO's AP of samples of the images, an image drawn twice counting as two.

    Detections are matched once; every sample then costs a sum over them. With each image once it is COCO's AP.

    Args:
        rows: Detections and ground truth of I images.
        counts: How often each sample has each image, integers [S, I].
        num_classes: Number of classes.
        max_detections: Best detections that count per image and class.
    """
    classes = {label: str(label) for label in range(num_classes)}
    matches: dict[int, list[ClassMatches]] = {label: [] for label in classes}
    for found in with_backend(None, lambda backend: backend.matches(rows, classes, max_detections)):
        matches[found.label].append(found)
    weights = np.asarray(counts, np.float64)
    values = np.stack([_class_ap(found, weights) for found in matches.values()])  # [K, S, T]
    exists = values > -1
    sums = np.where(exists, values, 0.0)
    return Resampled(_mean(sums, exists), _mean(sums[..., [IOU_50]], exists[..., [IOU_50]]))


def _mean(sums: Array, exists: Array) -> Array:
    """COCO's mean over classes and thresholds of the values that exist [S]."""
    number = exists.sum((0, 2))
    mean: Array = np.where(number > 0, sums.sum((0, 2)) / np.maximum(number, 1), -1.0)
    return mean


def _class_ap(found: list[ClassMatches], weights: Array) -> Array:
    """AP of one class at each IoU threshold, -1 in samples without an object [S, T].

    Args:
        found: The matches in each image that has detections or objects of the class.
        weights: How often each sample has each image [S, I].
    """
    samples, thresholds = len(weights), 10
    if not found:
        return np.full((samples, thresholds), -1.0)
    images = np.array([f.image for f in found])
    positives = weights[:, images] @ np.array([f.num_objects for f in found])
    order = np.argsort(-np.concatenate([f.scores for f in found]), kind="stable")
    of_image = np.repeat(images, [len(f.scores) for f in found])[order]
    matched = np.concatenate([f.matched for f in found], 1)[:, order]
    ignored = np.concatenate([f.ignored for f in found], 1)[:, order]
    values = np.full((samples, thresholds), -1.0)
    step = max(1, _ELEMENTS // max(1, len(order)))
    for start in range(0, samples, step):
        chunk = slice(start, start + step)
        of_detection = weights[chunk][:, of_image]
        for t in range(thresholds):
            values[chunk, t] = _average(of_detection, matched[t] & ~ignored[t], ~ignored[t], positives[chunk])
    return np.where(positives[:, None] > 0, values, -1.0)


def _average(weights: Array, true: Array, counted: Array, positives: Array) -> Array:
    """Precision averaged over COCO's recalls [S].

    Only true positives are looked at: precision is greatest, and a recall is first reached, at one of them.

    Args:
        weights: How often each sample has each detection, best first [S, D].
        true: Whether it found an object [D].
        counted: Whether it counts at all: those that match a crowd do not [D].
        positives: Objects in each sample [S].
    """
    hits = weights[:, true].cumsum(1)
    all_counted = np.where(counted, weights, 0.0).cumsum(1)[:, true]
    precision = hits / np.maximum(all_counted, np.finfo(float).tiny)
    envelope = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    recall = hits / np.maximum(positives, 1)[:, None]
    values = np.zeros(len(weights))
    for s in range(len(weights)):
        places = np.searchsorted(recall[s], RECALLS, side="left")
        reached = places < recall.shape[1]
        values[s] = envelope[s, places[reached]].sum() / len(RECALLS)
    return values
