"""A warning about images that have more objects than the evaluation counts detections."""

from collections.abc import Mapping, Sequence
from typing import Any

from .mean_ap import DetectionMAP


def too_many_objects(targets: Sequence[Mapping[str, Any]], metric: DetectionMAP, detections_per_img: int) -> str | None:
    """Return a warning if an image has more objects than the evaluation allows detections; else None.

    Args:
        targets: One dict per image with ``labels`` [G].
        metric: The metric, with its limit of detections.
        detections_per_img: Largest number of detections of an image that the detector returns in evaluation.
    """
    most = max((len(t["labels"]) for t in targets), default=0)
    limits = [(most, "", "eval_detections_per_img", detections_per_img)]
    if most > metric.max_detections:
        of_class = metric.protocol == "coco"
        if of_class:
            most = max(int(t["labels"].bincount().max()) for t in targets if len(t["labels"]))
        limits.append((most, " of one class" * of_class, "eval_max_detections", metric.max_detections))
    for number, kind, name, limit in limits:
        if number > limit:
            return (
                f"An image has {number} objects{kind}, but evaluation counts {limit} detections{kind} at most: the "
                f"other objects are missed by any model. Raise {name}, and set topk_candidates to several times that "
                "number."
            )
    return None
