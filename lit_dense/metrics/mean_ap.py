"""Mean average precision of COCO and LVIS, ``DetectionMAP``: exact on any number of processes."""

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
from .detection_table import UNKNOWN, Array, DetectionTable
from .evaluation import RECALLS, Evaluation, evaluate, number_names
from .frequency import frequency_groups
from .table_checks import check_rows, cut_detections
from .update_inputs import batch_rows, check_batch, read_ids

# Width and type of the rows of each state. Rows of `boxes` and `labels` are in the order of `images`, so that batches
# and processes are combined by concatenation.
STATES = {
    "images": (3, torch.int64),  # id, 1 if the id was given, number of rows in the other two
    "boxes": (5, torch.float32),  # x1, y1, x2, y2, score of a detection or area of an object (NaN: area of its box)
    "labels": (2, torch.int32),  # label, kind
}


class DetectionMAP(Metric):
    """Mean average precision of COCO or LVIS, overall and per class, over the images of all processes.

    ``compute`` returns a dict of scalar tensors:

    * ``map``, ``map_50``, ``map_75``, ``map_small``, ``map_medium``, ``map_large``,
    * ``mar_1``, ``mar_10``, ``mar_100`` (named after ``max_detections``), ``mar_small``, ``mar_medium``, ``mar_large``,
    * with ``class_images``: ``map_rare``, ``map_common`` and ``map_frequent``,
    * with ``calibration_score``: ``ece``, the expected calibration error,
    * ``map/<class>`` and ``map_50/<class>`` for every class.

    As in COCO, a number is -1 if there is no ground truth for it, and a class without ground truth is excluded from the
    mean. False positives on images without ground truth count. Without any images every number is -1. Boxes, scores and
    areas are stored as float32.

    After ``compute``, the attribute ``evaluation`` holds the precision-recall curves, the confusion matrix, and the
    evaluated detections and ground truth. It is None before the first ``compute``.

    On several processes, ``compute`` gathers the detections in six collectives. Their number does not depend on the
    data, and processes without images are supported. An image that was seen twice counts once, because the distributed
    sampler of a validation repeats images. The first process evaluates, and one more collective broadcasts the result.
    If the evaluation fails, every process raises an error.

    Args:
        class_names: The name of each label, used in the keys of the result. With None the names are the labels that
            occur.
        protocol: ``coco``, or ``lvis`` for data in which each image is annotated only for some classes. With ``lvis``
            targets have ``neg_labels`` and ``not_exhaustive_labels``, and there is no ``mar_1`` and ``mar_10``.
        max_detections: Number of best detections per image and class that are evaluated, more than 10, by default
            COCO's 100; dense scenes need more. With ``lvis`` it is the number per image, by default 300. With ``coco``
            it can also be a list of all limits, such as ``[1, 10, 1000]``: ``mar_<limit>`` is the recall with each
            limit, and all other numbers use the last. If detections are excluded, a warning is shown once.
        class_images: Number of training images with each class, to group classes into rare, common and frequent.
        frequency_bounds: Largest number of training images of a rare class, and of a common class.
        confusion_score: Smallest score of a detection in the confusion matrix, in [0, 1].
        backend: The evaluator: ``hotcoco``, or ``pycocotools``, which gives the same results and is much slower. None
            uses hotcoco, or pycocotools if hotcoco is missing or computes wrong results.
        calibration_score: Smallest score of a detection in the calibration error ``ece``, in [0, 1]: the mean
            difference of score and share of true positives at IoU 0.5, over ten bins of the score, weighted by their
            detections. With a low score, the many detections near 0 dominate it. None leaves it out.
        kwargs: Arguments of every torchmetrics metric, such as ``process_group``. Arguments of torchmetrics'
            ``MeanAveragePrecision`` are accepted with the values that this class supports, such as
            ``box_format="xyxy"``.

    Raises:
        UsageError: If an argument is wrong, or the ``backend`` cannot be used. ``compute`` raises it for a box with
            x2 < x1, y2 < y1, NaN or infinity, a score that is not between 0 and 1, or a label without a name.

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
        calibration_score: float | None = None,
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
        self.calibration_score = calibration_score
        if calibration_score is not None:
            check_range("DetectionMAP", "calibration_score", calibration_score, 0, 1)
        self.backend = backend
        if backend is not None:
            load_backend(backend)  # raises an error now, and on every process
        self.evaluation: Evaluation | None = None
        self._warned_of_cut = self._warned_of_lists = False
        self._reduce = Reduce(enabled=False)
        for name in STATES:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self,
        preds: Sequence[Mapping[str, Tensor]],
        targets: Sequence[Mapping[str, Tensor]],
        image_ids: Sequence[int] | Tensor | None = None,
    ) -> None:
        """Add the detections and the ground truth of a batch, without evaluating them.

        Args:
            preds: One dict per image: ``boxes`` [N, 4] as x1, y1, x2, y2 in pixels, ``scores`` [N], ``labels`` [N].
                Include low scores: a score threshold such as 0.05 can decide which of two models is better.
            targets: One dict per image: ``boxes`` [M, 4] and ``labels`` [M]. Optional are ``iscrowd`` [M], and ``area``
                [M] in square pixels, which determines small, medium and large; by default it is the area of the box.
                With ``lvis`` there are also ``neg_labels`` [any], the classes known to be absent from the image, and
                ``not_exhaustive_labels`` [any]. With any protocol, ``unknown_labels`` [any] are the classes that the
                image is not annotated for: its detections and objects of these classes do not count. Other keys are
                ignored. Without boxes (M = 0) every other detection of the image is a false positive.
            image_ids: Id of each image in the data set. Images with the same id count once. With None each image counts
                as a new one, which is wrong if a distributed sampler repeats images.

        Raises:
            UsageError: If keys are missing, or types, lengths or shapes are wrong. Values are checked by ``compute``,
                because checking them here would need a device synchronisation.
        """
        check_batch(preds, targets)
        ids = read_ids(image_ids, len(preds))
        if not ids:
            return
        if self.protocol == "coco" and not self._warned_of_lists and any("neg_labels" in target for target in targets):
            self._warned_of_lists = True
            warnings.warn(
                "The targets have LVIS's lists of classes (neg_labels), which the protocol coco does not read: "
                "detections of classes that an image is not annotated for count as false positives. Set "
                "protocol='lvis', or --model.eval_protocol=lvis.",
                stacklevel=2,
            )
        rows = batch_rows(preds, targets, self.protocol == "lvis", self.device)
        images = [(*image_id, count) for image_id, count in zip(ids, rows.counts, strict=True)]
        self.images.append(torch.tensor(images, device=self.device))
        self.boxes.append(rows.boxes)
        self.labels.append(rows.labels)

    def compute(self) -> dict[str, Tensor]:
        """Evaluate all images.

        Returns:
            The numbers listed in the class docstring, on the metric's device; equal on all processes.

        Raises:
            UsageError: If a box or a score is invalid, or a label has no name; the message names the image.
            RuntimeError: If the evaluation failed on another process.
        """
        is_gathered = isinstance(self.images, Tensor)  # before gathering, it is a list of this process's images
        reduce = self._reduce if is_gathered else Reduce(enabled=False)
        tables = {name: self._rows(name) for name in STATES}
        names = self._names(tables["labels"])
        keys = number_names(names.values(), self.limits, self.groups, self.calibration_score is not None)
        curves = (len(names), len(RECALLS))
        matrix = (len(names) + 1, len(names) + 1)
        lengths = [len(keys), *(rows * columns for rows, columns in (curves, curves, matrix))]
        packed = torch.zeros(sum(lengths) + 1)  # the last entry is 1 if the evaluation failed
        rows: DetectionTable | None = None
        error: Exception | None = None
        if reduce.rank == 0:
            try:
                rows = _join_images(**{n: t.cpu().numpy() for n, t in tables.items()}, world_size=reduce.world_size)
                result = self._evaluate(rows, names)
                parts = ([result.numbers[key] for key in keys], result.precision_50, result.scores_50, result.confusion)
                packed[:-1] = torch.from_numpy(np.concatenate([np.ravel(part) for part in parts]))
            except Exception as failure:  # any error: the other processes wait for the broadcast below
                error, packed[-1] = failure, 1
        packed = reduce.broadcast(packed.to(self.device))
        if packed[-1]:
            if is_gathered:
                self.unsync()  # torchmetrics does so only if compute returns
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
        """Replace the states with those of all processes; arguments as in torchmetrics.

        Each state is concatenated first, because a process without images must contribute an empty tensor of the right
        width and type.
        """
        for name in STATES:
            setattr(self, name, [self._rows(name)])
        super().sync(*args, **kwargs)

    def _gather(self, rows: Tensor, group: Any = None) -> list[Tensor]:
        """Gather a state from all processes; torchmetrics calls it for each state."""
        self._reduce = Reduce(group)
        return [self._reduce.gather(rows)]

    def _evaluate(self, rows: DetectionTable, names: Mapping[int, str]) -> Evaluation:
        check_rows(rows, self.class_names)
        if not self._warned_of_cut and (warning := cut_detections(rows, self.protocol, self.max_detections)):
            self._warned_of_cut = True
            warnings.warn(warning, stacklevel=2)
        return self.evaluate_rows(rows, names)

    def evaluate_rows(self, rows: DetectionTable, names: Mapping[int, str]) -> Evaluation:
        """Evaluate other detections and ground truth with the settings of this metric.

        Args:
            rows: Detections and ground truth.
            names: The name of each label, in ascending order of labels.
        """
        return evaluate(
            rows,
            names,
            self.protocol,
            self.limits,
            self.groups,
            self.confusion_score,
            self.backend,
            self.calibration_score,
        )

    def _rows(self, name: str) -> Tensor:
        """Return a state as one tensor on the metric's device, with the right width and type even if it is empty."""
        width, dtype = STATES[name]
        state = getattr(self, name)
        parts = [part.to(self.device) for part in ([state] if isinstance(state, Tensor) else state)]
        if len(parts) == 1:
            return parts[0]
        return torch.cat([torch.empty(0, width, dtype=dtype, device=self.device), *parts])

    def _names(self, labels: Tensor) -> dict[int, str]:
        """Return the label and name of each class in the result; equal on all processes after gathering."""
        if self.class_names is not None:
            return dict(enumerate(self.class_names))
        rows = labels.cpu().numpy()
        return {label: str(label) for label in np.unique(rows[rows[:, 1] != UNKNOWN, 0]).tolist()}


def _join_images(images: Array, boxes: Array, labels: Array, world_size: int) -> DetectionTable:
    """Combine the states into a table, sorted by image id, then images without an id; repeated ids are removed.

    Sorting by id makes the result independent of the order in which processes saw the images: if scores are tied, COCO
    ranks the earlier image first.
    """
    has_id = images[:, 1] == 1
    _, first = np.unique(images[has_id, 0], return_index=True)
    kept = np.concatenate([np.flatnonzero(has_id)[first], np.flatnonzero(~has_id)])
    left_out = len(images) - len(kept)
    if left_out >= world_size:  # more than a distributed sampler repeats
        warnings.warn(
            f"DetectionMAP: {left_out} of {len(images)} images were left out because their ids are repeated. If they "
            "are different images (of two data sets, or with ids that restart in every batch), give them different ids "
            "or none.",
            stacklevel=2,
        )
    counts = images[kept, 2]
    ends = counts.cumsum()
    starts = images[:, 2].cumsum()[kept] - counts
    order = np.repeat(starts - (ends - counts), counts) + np.arange(ends[-1] if len(ends) else 0)
    table = DetectionTable(
        image_ids=np.where(has_id, images[:, 0], np.arange(len(images)))[kept],
        images=np.repeat(np.arange(len(kept)), counts),
        boxes=boxes[order, :4],
        labels=labels[order, 0],
        kinds=labels[order, 1],
        scores=boxes[order, 4],
    )
    return table.where(table.kinds != UNKNOWN)
