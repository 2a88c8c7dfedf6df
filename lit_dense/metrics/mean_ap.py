"""COCO's and LVIS's mean average precision: exact on any number of processes, and evaluated once."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from ..core.distributed import Reduce
from ..core.errors import UsageError, check_range
from .arguments import MAX_DETECTIONS, read_limits, read_names, take_torchmetrics_arguments
from .backends import BackendName, Protocol, load_backend
from .checks import check_rows, cut_detections
from .detection_table import Array, DetectionTable
from .evaluation import RECALLS, Evaluation, evaluate, number_names
from .frequency import frequency_groups
from .inputs import batch_rows, check_batch, read_ids

# The states with the width and type of their rows. An image's rows in `boxes` and `labels` follow those of the image
# before it, so batches and processes are joined by concatenation alone.
STATES = {
    "images": (3, torch.int64),  # id, 1 if the id was given, number of rows in the other two
    "boxes": (5, torch.float32),  # x1, y1, x2, y2, then a detection's score or an object's area (nan: that of its box)
    "labels": (2, torch.int32),  # label, kind
}


class DetectionMAP(Metric):
    """COCO's twelve numbers, and AP and AP50 per class, of all images that all processes have seen, each counted once.

    ``compute`` returns a dict of scalar tensors: ``map``, ``map_50``, ``map_75``, ``map_small``, ``map_medium``,
    ``map_large``, ``mar_1``, ``mar_10``, ``mar_100`` (named after ``max_detections``), ``mar_small``, ``mar_medium``,
    ``mar_large``, with ``class_images`` also ``map_rare``, ``map_common`` and ``map_frequent``, then ``map/<class>``
    and ``map_50/<class>`` for every class. As in COCO a number is -1 where there is no ground truth to measure it on,
    and such a class is left out of the mean; false positives on images without ground truth count. No images at all:
    every number is -1. Boxes, scores and areas are kept as float32.

    ``evaluation`` then holds precision-recall curves of the same evaluation, the confusion matrix, and what was
    evaluated. It stays until the next ``compute``; None before the first.

    On several processes the detections are gathered in six collectives whatever a process holds (no image at all
    included), images that were seen twice are counted once (the sampler of a data-parallel validation repeats some),
    the first process evaluates, and one more collective gives the result to all. An evaluation that fails raises on
    every process.

    Args:
        class_names: The name of each label, for the keys of the result; None names every label seen by its number.
        protocol: ``coco``, or ``lvis`` for data that is annotated for some classes of each image: targets then tell
            ``neg_labels`` and ``not_exhaustive_labels``, and ``mar_1`` and ``mar_10`` do not exist.
        max_detections: Best detections that count per image and class, over 10, by default COCO's 100, and more for
            dense scenes; per image with ``lvis``, by default its 300. With ``coco`` also a list of all limits, such as
            ``[1, 10, 1000]``: ``mar_<limit>`` is the recall with each, and the last holds for all other numbers. A
            warning says, once, that detections were left out.
        class_images: Number of training images with each class, by which it is rare, common or frequent.
        frequency_bounds: Most training images of a rare and of a common class.
        confusion_score: Smallest score of a detection in the confusion matrix.
        backend: The evaluator: ``hotcoco``, or ``pycocotools``, which gives the same numbers and is much slower. None
            takes hotcoco, and pycocotools where hotcoco is missing or computes wrong numbers.
        kwargs: Arguments of every torchmetrics metric, such as ``process_group``; and arguments of torchmetrics'
            ``MeanAveragePrecision`` with values that ask for what is done here, such as ``box_format="xyxy"``.

    Raises:
        UsageError: For wrong arguments, or a ``backend`` that cannot be used; from ``compute`` for a box with x2 < x1,
            y2 < y1, NaN or infinity, a score that is not between 0 and 1, or a label that has no name.

    Example:
        >>> metric = DetectionMAP(class_names=["cat", "dog"])
        >>> box, label = torch.tensor([[10.0, 20.0, 60.0, 90.0]]), torch.tensor([1])
        >>> metric.update([{"boxes": box, "scores": torch.tensor([0.9]), "labels": label}],
        ...               [{"boxes": box, "labels": label}], image_ids=[7])
        >>> result = metric.compute()
        >>> result["map"], result["map/dog"], result["map/cat"]
        (tensor(1.), tensor(1.), tensor(-1.))
        >>> metric.evaluation.confusion.tolist()  # cat, dog, background
        [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    images: list[Tensor]
    boxes: list[Tensor]
    labels: list[Tensor]

    def __init__(
        self,
        class_names: Iterable[str | int] | None = None,
        protocol: Protocol = "coco",
        max_detections: int | Sequence[int] | None = None,
        class_images: Sequence[int] | None = None,
        frequency_bounds: Sequence[int] = (10, 100),
        confusion_score: float = 0.3,
        backend: BackendName | None = None,
        **kwargs: Any,
    ) -> None:
        thresholds = take_torchmetrics_arguments(kwargs)
        if thresholds is not None and max_detections is not None:
            raise UsageError("DetectionMAP: max_detection_thresholds is max_detections here: give one of them.")
        super().__init__(**{"dist_sync_fn": self._gather, **kwargs})
        if protocol not in MAX_DETECTIONS:
            raise UsageError(f"protocol must be 'coco' or 'lvis', got {protocol!r}.")
        self.limits = read_limits(max_detections if thresholds is None else thresholds, protocol)
        self.max_detections = self.limits[-1]
        self.class_names = read_names(class_names)
        if class_images is not None and len(class_images) != len(self.class_names or ()):
            names = "no class_names" if self.class_names is None else f"{len(self.class_names)} class_names"
            raise UsageError(f"class_images has {len(class_images)} numbers, and there are {names}: give one for each.")
        self.protocol: Protocol = protocol
        self.groups = {} if class_images is None else frequency_groups(class_images, frequency_bounds)
        self.confusion_score = check_range("DetectionMAP", "confusion_score", confusion_score, 0, 1)
        self.backend = backend
        if backend is not None:
            load_backend(backend)  # a wrong or missing one is said now, on every process
        self.evaluation: Evaluation | None = None
        self._told_of_cut = False
        self._reduce = Reduce(enabled=False)
        for name in STATES:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self,
        preds: Sequence[Mapping[str, Tensor]],
        targets: Sequence[Mapping[str, Tensor]],
        image_ids: Sequence[int] | Tensor | None = None,
    ) -> None:
        """Adds the detections and the ground truth of a batch; nothing is evaluated yet.

        Args:
            preds: One dict per image: ``boxes`` [N, 4] as x1, y1, x2, y2 in pixels, ``scores`` [N], ``labels`` [N].
                Give all detections down to a low score: a threshold of .05 decides comparisons.
            targets: One dict per image: ``boxes`` [M, 4] and ``labels`` [M]; optional ``iscrowd`` [M], and ``area`` [M]
                in pixels of the same image (default: the boxes' areas), which decides small, medium and large. With
                ``lvis`` also ``neg_labels`` [any], the classes that the image is known not to have, and
                ``not_exhaustive_labels`` [any]. Other keys are ignored. Without boxes (M = 0) every detection of the
                image is a false positive.
            image_ids: The data set's id of each image, by which an image that is seen twice counts once. None counts
                each image as a new one, which is wrong where a distributed sampler repeats images.

        Raises:
            UsageError: For missing keys, wrong types, or lengths and shapes that do not fit. Numbers are looked at by
                ``compute``: reading them now would wait for the device.
        """
        check_batch(preds, targets)
        ids = read_ids(image_ids, len(preds))
        if not ids:
            return
        rows = batch_rows(preds, targets, self.protocol == "lvis", self.device)
        images = [(*image_id, count) for image_id, count in zip(ids, rows.counts, strict=True)]
        self.images.append(torch.tensor(images, device=self.device))
        self.boxes.append(rows.boxes)
        self.labels.append(rows.labels)

    def compute(self) -> dict[str, Tensor]:
        """The numbers named in the class, on the metric's device, equal on all processes.

        Raises:
            UsageError: For a box or score that cannot be, or a label that has no name; it names the image.
            RuntimeError: If the evaluation failed on another process.
        """
        is_gathered = isinstance(self.images, Tensor)  # a list holds the process's own images
        reduce = self._reduce if is_gathered else Reduce(enabled=False)
        tables = {name: self._rows(name) for name in STATES}
        names = self._names(tables["labels"])
        keys = number_names(names.values(), self.limits, self.groups)
        curves = (len(names), len(RECALLS))
        matrix = (len(names) + 1, len(names) + 1)
        lengths = [len(keys), *(rows * columns for rows, columns in (curves, curves, matrix))]
        packed = torch.zeros(sum(lengths) + 1)  # the last one says that the evaluation failed
        rows: DetectionTable | None = None
        error: Exception | None = None
        if reduce.rank == 0:
            try:
                rows = _join_images(**{n: t.cpu().numpy() for n, t in tables.items()}, world_size=reduce.world_size)
                found = self._evaluate(rows, names)
                parts = ([found.numbers[key] for key in keys], found.precision_50, found.scores_50, found.confusion)
                packed[:-1] = torch.from_numpy(np.concatenate([np.ravel(part) for part in parts]))
            except Exception as failure:  # whatever it is, the others wait for the broadcast below
                error, packed[-1] = failure, 1
        packed = reduce.broadcast(packed.to(self.device))
        if packed[-1]:
            if is_gathered:
                self.unsync()  # torchmetrics does so only where compute returns
            raise error or RuntimeError("DetectionMAP: the evaluation failed on the first process; its error says why.")
        values = packed[: len(keys)]
        numbers, *arrays = np.split(packed[:-1].cpu().numpy(), np.cumsum(lengths)[:-1])
        ap, ap_50 = np.split(numbers[len(keys) - 2 * len(names) :], 2)
        self.evaluation = Evaluation(
            class_names=tuple(names.values()),
            numbers=dict(zip(keys, numbers.tolist(), strict=True)),
            ap=ap,
            ap_50=ap_50,
            precision_50=arrays[0].reshape(curves),
            scores_50=arrays[1].reshape(curves),
            confusion=arrays[2].reshape(matrix).astype(np.int64),
            confusion_score=self.confusion_score,
            rows=rows,
        )
        return dict(zip(keys, values.unbind(), strict=True))

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Replaces the states by those of all processes; see torchmetrics.

        A process without images must hand over an empty tensor of the right width and type, and so each state becomes
        one tensor first.
        """
        for name in STATES:
            setattr(self, name, [self._rows(name)])
        super().sync(*args, **kwargs)

    def _gather(self, rows: Tensor, group: Any = None) -> list[Tensor]:
        """A state of all processes: what torchmetrics calls for each state."""
        self._reduce = Reduce(group)
        return [self._reduce.gather(rows)]

    def _evaluate(self, rows: DetectionTable, names: Mapping[int, str]) -> Evaluation:
        check_rows(rows, self.class_names)
        if not self._told_of_cut and (cut := cut_detections(rows, self.protocol, self.max_detections)):
            self._told_of_cut = True
            warnings.warn(cut, stacklevel=2)
        return evaluate(rows, names, self.protocol, self.limits, self.groups, self.confusion_score, self.backend)

    def _rows(self, name: str) -> Tensor:
        """A state as one tensor of its type on the metric's device, also when it is empty."""
        width, dtype = STATES[name]
        held = getattr(self, name)
        parts = [part.to(self.device) for part in ([held] if isinstance(held, Tensor) else held)]
        if len(parts) == 1:
            return parts[0]
        return torch.cat([torch.empty(0, width, dtype=dtype, device=self.device), *parts])

    def _names(self, labels: Tensor) -> dict[int, str]:
        """The label and name of each class in the result, equal on all processes once the states are gathered."""
        if self.class_names is not None:
            return dict(enumerate(self.class_names))
        return {label: str(label) for label in np.unique(labels[:, 0].cpu().numpy()).tolist()}


def _join_images(images: Array, boxes: Array, labels: Array, world_size: int) -> DetectionTable:
    """The rows of the states, sorted by image: by id, then those without one; an id that came before is left out.

    Sorting by id makes the result independent of the order in which processes saw the images: where scores are tied,
    COCO counts the earlier image first.
    """
    given = images[:, 1] == 1
    _, first = np.unique(images[given, 0], return_index=True)
    kept = np.concatenate([np.flatnonzero(given)[first], np.flatnonzero(~given)])
    left_out = len(images) - len(kept)
    if left_out >= world_size:  # more than a distributed sampler repeats
        warnings.warn(
            f"DetectionMAP: {left_out} of {len(images)} images were left out because their id was given before. If "
            "they are different images (two data sets, ids that start anew in every batch), give them different ids "
            "or none.",
            stacklevel=2,
        )
    counts = images[kept, 2]
    ends = counts.cumsum()
    starts = images[:, 2].cumsum()[kept] - counts
    order = np.repeat(starts - (ends - counts), counts) + np.arange(ends[-1] if len(ends) else 0)
    return DetectionTable(
        image_ids=np.where(given, images[:, 0], np.arange(len(images)))[kept],
        images=np.repeat(np.arange(len(kept)), counts),
        boxes=boxes[order, :4],
        labels=labels[order, 0],
        kinds=labels[order, 1],
        scores=boxes[order, 4],
    )
