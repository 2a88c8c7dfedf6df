"""AP of resampled images, for confidence intervals by the bootstrap (https://doi.org/10.1214/aos/1176344552)."""

from typing import NamedTuple

import numpy as np

from .backends import ClassMatches, with_backend
from .detection_table import Array, DetectionTable
from .evaluation import IOU_50, RECALLS

_ELEMENTS = 4_000_000  # largest size of a temporary array


class Resampled(NamedTuple):
    """AP of each of S samples.

    Args:
        ap: COCO's AP, -1 if no image of the sample has an object, float64 [S].
        ap_50: AP at IoU 0.5, -1 if no image of the sample has an object, float64 [S].
    """

    ap: Array
    ap_50: Array


def resampled_ap(rows: DetectionTable, counts: Array, num_classes: int, max_detections: int = 100) -> Resampled:
    """Compute COCO's AP of samples of the images; an image that is drawn twice counts as two images.

    Detections are matched only once, and each sample is a weighted sum over them. A sample with each image once has
    COCO's AP.

    Args:
        rows: Detections and ground truth of I images.
        counts: Number of draws of each image in each sample, integers [S, I].
        num_classes: Number of classes.
        max_detections: Number of best detections per image and class that are evaluated.
    """
    classes = {label: str(label) for label in range(num_classes)}
    matches: dict[int, list[ClassMatches]] = {label: [] for label in classes}
    for match in with_backend(None, lambda backend: backend.matches(rows, classes, max_detections)):
        matches[match.label].append(match)
    weights = np.asarray(counts, np.int32)
    values = np.stack([_class_ap(of_class, weights) for of_class in matches.values()])  # [K, S, T]
    exists = values > -1
    sums = np.where(exists, values, 0.0)
    return Resampled(_mean(sums, exists), _mean(sums[..., [IOU_50]], exists[..., [IOU_50]]))


def _mean(sums: Array, exists: Array) -> Array:
    """Compute COCO's mean over classes and thresholds, of existing values; -1 if there are none [S]."""
    number = exists.sum((0, 2))
    mean: Array = np.where(number > 0, sums.sum((0, 2)) / np.maximum(number, 1), -1.0)
    return mean


def _class_ap(matches: list[ClassMatches], weights: Array) -> Array:
    """Compute AP of one class at each IoU threshold, -1 in samples without an object [S, T].

    Args:
        matches: The matches in each image that has detections or objects of the class.
        weights: Number of draws of each image in each sample [S, I].
    """
    samples, thresholds = len(weights), 10
    if not matches:
        return np.full((samples, thresholds), -1.0)
    images = np.array([m.image for m in matches])
    positives = weights[:, images] @ np.array([m.num_objects for m in matches])
    order = np.argsort(-np.concatenate([m.scores for m in matches]), kind="stable")
    of_image = np.repeat(images, [len(m.scores) for m in matches])[order]
    counted = ~np.concatenate([m.ignored for m in matches], 1)[:, order]  # not matched with a crowd, for example
    true = np.concatenate([m.matched for m in matches], 1)[:, order] & counted
    values = np.full((samples, thresholds), -1.0)
    step = max(1, _ELEMENTS // max(1, len(order)))
    for start in range(0, samples, step):
        chunk = slice(start, start + step)
        of_detection = weights[chunk][:, of_image]
        all_detections = of_detection.cumsum(1, dtype=np.int32)
        for t in range(thresholds):
            if counted[t].all():  # without ignored detections, the sums are those of each threshold
                sums = all_detections
            else:
                sums = np.where(counted[t], of_detection, 0).cumsum(1, dtype=np.int32)
            hits = of_detection[:, true[t]].cumsum(1, dtype=np.int32)
            values[chunk, t] = _average(hits, sums[:, true[t]], positives[chunk])
    return np.where(positives[:, None] > 0, values, -1.0)


def _average(hits: Array, detections: Array, positives: Array) -> Array:
    """Average precision over COCO's recalls [S].

    Only true positives are evaluated, because each maximum of precision and each increase of recall is at one of them.

    Args:
        hits: Number of true positives up to and with each of the P true positives, best first, integers [S, P].
        detections: Number of detections up to and with it, without ignored ones, integers [S, P].
        positives: Number of objects in each sample [S].
    """
    precision = hits / np.maximum(detections, 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    recall = hits / np.maximum(positives, 1)[:, None]
    values = np.zeros(len(hits))
    for s in range(len(hits)):
        index = np.searchsorted(recall[s], RECALLS, side="left")
        reached = index < recall.shape[1]
        values[s] = envelope[s, index[reached]].sum() / len(RECALLS)
    return values
