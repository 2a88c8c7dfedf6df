"""Checks of the arguments of ``DetectionMAP``, including those of torchmetrics' ``MeanAveragePrecision``."""

import operator
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ..core.errors import UsageError
from .backends import Protocol

MAX_DETECTIONS: dict[Protocol, int] = {"coco": 100, "lvis": 300}

_THRESHOLDS, _RECALLS = np.linspace(0.5, 0.95, 10), np.linspace(0, 1, 101)


def read_limits(max_detections: Any, protocol: Protocol) -> tuple[int, ...]:
    """Return the limits of detections in ascending order.

    Args:
        max_detections: A number, a list of numbers, or None for the default of the protocol.
        protocol: With ``coco`` a single number is the last of three limits, after COCO's 1 and 10. ``lvis`` has only
            one limit.

    Raises:
        UsageError: If the argument has another type, is a single number up to 10 with ``coco``, or has several numbers
            with ``lvis``.
    """
    if max_detections is None:
        max_detections = MAX_DETECTIONS[protocol]
    if isinstance(max_detections, np.ndarray) or hasattr(max_detections, "tolist"):
        max_detections = max_detections.tolist()  # hasattr: tensors
    listed = isinstance(max_detections, Iterable) and not isinstance(max_detections, str | bytes | Mapping)
    numbers = list(max_detections) if listed else [max_detections]
    try:
        limits = tuple(sorted({operator.index(number) for number in numbers if not isinstance(number, bool)}))
    except TypeError:
        limits = ()
    if not limits or limits[0] < 1 or len(limits) != len(numbers):
        raise UsageError(
            "DetectionMAP: max_detections must be a number of detections such as 1000, or a list of different numbers "
            f"such as [1, 10, 1000], not {max_detections!r}."
        )
    if protocol == "lvis" and len(limits) > 1:
        raise UsageError(
            "DetectionMAP: LVIS has one limit, of all detections of an image: with protocol='lvis' max_detections must "
            f"be one number such as 300, not {max_detections!r}."
        )
    if protocol == "lvis" or listed:
        return limits
    if limits[0] <= 10:
        raise UsageError(
            f"DetectionMAP: max_detections must be over 10, COCO's second limit, got {max_detections}; a list gives "
            f"all limits: max_detections=[{', '.join(map(str, sorted({1, *limits})))}]."
        )
    return 1, 10, limits[0]


def read_names(class_names: Any) -> tuple[str, ...] | None:
    """Return the name of each label, or None.

    Args:
        class_names: A list of different strings or numbers, or None.

    Raises:
        UsageError: If the argument has another type, or if names are repeated.
    """
    if class_names is None:
        return None
    expected = "class_names must be a list with a name for each label, such as ['cat', 'dog']"
    if isinstance(class_names, int | np.integer):
        raise UsageError(
            f"DetectionMAP: {expected}, not the number {class_names}. range({class_names}) names {class_names} classes "
            "by their labels; None names the labels that occur."
        )
    if isinstance(class_names, str | bytes | Mapping) or not isinstance(class_names, Iterable):
        raise UsageError(f"DetectionMAP: {expected}, not {class_names!r}.")
    names = tuple(class_names)
    if wrong := [name for name in names if not isinstance(name, str | int | np.integer)]:
        raise UsageError(f"DetectionMAP: {expected}; {wrong[0]!r} is not a name.")
    names = tuple(map(str, names))
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UsageError(f"class_names must differ, these are repeated: {', '.join(repeated)}.")
    return names


def take_torchmetrics_arguments(kwargs: dict[str, Any]) -> Any:
    """Remove the arguments of torchmetrics' ``MeanAveragePrecision``, and check that their values are supported.

    Args:
        kwargs: Keyword arguments; those of ``MeanAveragePrecision`` are removed in place.

    Returns:
        The value of ``max_detection_thresholds``, torchmetrics' name of ``max_detections``; None if it is not given.

    Raises:
        UsageError: If a value is not supported; the message names the alternative.
    """
    is_supported: dict[str, Callable[[Any], bool]] = {
        "box_format": lambda value: value == "xyxy",
        "iou_type": lambda value: value in ("bbox", ("bbox",), ["bbox"]),
        "iou_thresholds": lambda value: value is None or _equal(value, _THRESHOLDS),
        "rec_thresholds": lambda value: value is None or _equal(value, _RECALLS),
        "class_metrics": lambda value: isinstance(value, bool),  # per-class numbers are always computed
        "extended_summary": lambda value: value is False,
        "average": lambda value: value == "macro",
        "num_classes": lambda value: False,
    }
    for name in kwargs.keys() & is_supported.keys():
        value = kwargs.pop(name)
        if not is_supported[name](value):
            cure = _CURES[name].format(value=value)
            raise UsageError(f"DetectionMAP: {name}={value!r} is not supported: {cure}")
    return kwargs.pop("max_detection_thresholds", None)


_CURES = {
    "box_format": "boxes must be x1, y1, x2, y2; torchvision.ops.box_convert(boxes, '{value}', 'xyxy') converts them.",
    "iou_type": "boxes are evaluated, so only 'bbox'; for masks use MeanAveragePrecision of torchmetrics.",
    "iou_thresholds": "map is the mean over COCO's IoU thresholds .50:.05:.95; map_50 and map_75 are at one of them.",
    "rec_thresholds": "precision is read at COCO's recalls 0:.01:1; see metric.evaluation.precision_50 after compute.",
    "class_metrics": "map/<class> and map_50/<class> are always given.",
    "extended_summary": "metric.evaluation holds curves, scores and the confusion matrix after compute.",
    "average": "map is the mean over classes, 'macro'; to count all classes as one, give every box the label 0.",
    "num_classes": "give class_names, a list with a name for each label, or leave it out.",
}


def _equal(values: Any, expected: Any) -> bool:
    try:
        array = np.asarray(values, np.float64).ravel()
    except (TypeError, ValueError):
        return False
    return array.shape == expected.shape and bool(np.allclose(array, expected, rtol=0, atol=1e-4))
