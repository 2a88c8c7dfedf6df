"""COCO's mean average precision: exact on any number of processes, and evaluated once."""

import contextlib
import io
import operator
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics import Metric

from ..reduce import Reduce

Array = npt.NDArray[Any]
Backend = Literal["faster_coco_eval", "pycocotools"]

# What a row of boxes is, the second column of the state `labels`.
DETECTION, OBJECT, CROWD = 0, 1, 2

# The states with the width and type of their rows. An image's rows in `boxes` and `labels` follow those of the image
# before it, so batches and processes are joined by concatenation alone.
STATES = {
    "images": (3, torch.int64),  # id, 1 if the id was given, number of rows in the other two
    "boxes": (5, torch.float32),  # x1, y1, x2, y2, then a detection's score or an object's area (nan: that of its box)
    "labels": (2, torch.int32),  # label, kind
}

AREAS = ("small", "medium", "large")  # COCO's, after the first one, which is "all"
IOU_50, IOU_75 = 0, 5  # places among COCO's ten IoU thresholds


class DetectionMAP(Metric):
    """COCO's twelve numbers, and AP and AP50 per class, of all images that all processes have seen, each counted once.

    ``compute`` returns a dict of scalar tensors: ``map``, ``map_50``, ``map_75``, ``map_small``, ``map_medium``,
    ``map_large``, ``mar_1``, ``mar_10``, ``mar_100`` (named after ``max_detections``), ``mar_small``, ``mar_medium``,
    ``mar_large``, then ``map/<class>`` and ``map_50/<class>`` for every class. As in COCO a number is -1 where there
    is no ground truth to measure it on, and such a class is left out of the mean; false positives on images without
    ground truth count. No images at all: every number is -1. Boxes, scores and areas are kept as float32.

    On several processes the detections are gathered in six collectives whatever a process holds (no image at all
    included), images that were seen twice are counted once (the sampler of a data-parallel validation repeats some),
    the first process evaluates, and one more collective gives the result to all. An evaluation that fails raises on
    every process.

    Args:
        class_names: The name of each label, for the keys of the result; None names every label seen by its number.
        backend: The evaluator: ``faster_coco_eval`` or COCO's own ``pycocotools``, which is slower and gives the same.
        max_detections: Best detections that count per image and class, COCO's 100; more for dense scenes. Over 10.
        kwargs: Arguments of every torchmetrics metric, such as ``process_group``.

    Raises:
        ValueError: For an unknown backend, repeated class names or too small a ``max_detections``; from ``compute``
            for a label that has no name.

    Example:
        >>> metric = DetectionMAP(class_names=["cat", "dog"])
        >>> box, label = torch.tensor([[10.0, 20.0, 60.0, 90.0]]), torch.tensor([1])
        >>> metric.update([{"boxes": box, "scores": torch.tensor([0.9]), "labels": label}],
        ...               [{"boxes": box, "labels": label}], image_ids=[7])
        >>> result = metric.compute()
        >>> result["map"], result["map/dog"], result["map/cat"]
        (tensor(1.), tensor(1.), tensor(-1.))
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    images: list[Tensor]
    boxes: list[Tensor]
    labels: list[Tensor]

    def __init__(
        self,
        class_names: Sequence[str] | None = None,
        backend: Backend = "faster_coco_eval",
        max_detections: int = 100,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if backend not in ("faster_coco_eval", "pycocotools"):
            raise ValueError(f"backend must be 'faster_coco_eval' or 'pycocotools', got {backend!r}.")
        if max_detections <= 10:
            raise ValueError(f"max_detections must be over 10, COCO's second threshold, got {max_detections}.")
        repeated = [name for name, count in Counter(class_names or ()).items() if count > 1]
        if repeated:
            raise ValueError(f"class_names must differ, these are repeated: {', '.join(repeated)}.")
        self.class_names = None if class_names is None else tuple(class_names)
        self.backend: Backend = backend
        self.max_detections = max_detections
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
                in pixels of the same image (default: the boxes' areas), which decides small, medium and large. Other
                keys are ignored. Without boxes (M = 0) every detection of the image is a false positive.
            image_ids: The data set's id of each image, by which an image that is seen twice counts once. None counts
                each image as a new one, which is wrong where a distributed sampler repeats images.

        Raises:
            ValueError: For missing keys, wrong types, or lengths and shapes that do not fit.
        """
        _check_batch(preds, targets)
        ids = _read_ids(image_ids, len(preds))
        images, rows = [], []
        for index, (pred, target, image_id) in enumerate(zip(preds, targets, ids, strict=True)):
            detections, objects = _detections(pred, f"preds[{index}]"), _objects(target, f"targets[{index}]")
            images.append((*image_id, len(detections[0]) + len(objects[0])))
            rows += [detections, objects]
        if images:
            self.images.append(torch.tensor(images, device=self.device))
            self.boxes.append(torch.cat([boxes.to(self.device) for boxes, _ in rows]))
            self.labels.append(torch.cat([labels.to(self.device) for _, labels in rows]))

    def compute(self) -> dict[str, Tensor]:
        """The numbers named in the class, on the metric's device, equal on all processes.

        Raises:
            ValueError: If a label has no name in ``class_names``, or a score is not a number.
            RuntimeError: If the evaluation failed on another process.
        """
        reduce = self._reduce if self._is_synced else Reduce(enabled=False)
        tables = {name: self._rows(name) for name in STATES}
        names = self._names(tables["labels"])
        keys = self._keys(names.values())
        result = torch.zeros(len(keys) + 1, dtype=torch.float32)  # the last one says that the evaluation failed
        error: Exception | None = None
        if reduce.rank == 0:
            try:
                arrays = {name: table.cpu().numpy() for name, table in tables.items()}
                result[:-1] = torch.tensor(self._evaluate(**arrays, classes=list(names), world_size=reduce.world_size))
            except Exception as failure:  # whatever it is, the others wait for the broadcast below
                error, result[-1] = failure, 1
        result = reduce.broadcast(result.to(self.device))
        if result[-1]:
            if self._is_synced:
                self.unsync()  # torchmetrics does so only where compute returns
            raise error or RuntimeError("DetectionMAP: the evaluation failed on the first process; its error says why.")
        return dict(zip(keys, result[:-1].unbind(), strict=True))

    def _sync_dist(self, dist_sync_fn: Any = None, process_group: Any = None) -> None:
        """Replaces the states by those of all processes.

        torchmetrics calls this for ``compute`` but not for the batch value of ``forward``, and puts the process's own
        states back afterwards, so all of its switches keep their meaning. Its own version breaks on a process without
        images, whose states would have the default type.
        """
        self._reduce = Reduce(process_group or self.process_group)
        for name in STATES:
            setattr(self, name, [self._reduce.gather(self._rows(name))])

    def _rows(self, name: str) -> Tensor:
        """A state as one tensor of its type on the metric's device, also when it is empty."""
        width, dtype = STATES[name]
        empty = torch.empty(0, width, dtype=dtype, device=self.device)
        return torch.cat([empty, *(rows.to(self.device) for rows in getattr(self, name))])

    def _names(self, labels: Tensor) -> dict[int, str]:
        """The label and name of each class in the result, equal on all processes once the states are gathered."""
        if self.class_names is not None:
            return dict(enumerate(self.class_names))
        return {label: str(label) for label in np.unique(labels[:, 0].cpu().numpy()).tolist()}

    def _keys(self, names: Iterable[str]) -> list[str]:
        return [
            *("map", "map_50", "map_75"),
            *(f"map_{area}" for area in AREAS),
            *("mar_1", "mar_10", f"mar_{self.max_detections}"),
            *(f"mar_{area}" for area in AREAS),
            *(f"{key}/{name}" for key in ("map", "map_50") for name in names),
        ]

    def _evaluate(
        self, images: Array, boxes: Array, labels: Array, classes: Sequence[int], world_size: int
    ) -> list[float]:
        """The values of ``_keys``, from one evaluation."""
        _check_scores(boxes[labels[:, 1] == DETECTION, 4])
        if self.class_names is not None:
            _check_labels(labels, len(self.class_names))
        numbers = np.repeat(_number_images(images, world_size), images[:, 2])
        # A class without ground truth is -1 whatever was detected of it, so the evaluator need not see it.
        with_truth = np.unique(labels[(numbers >= 0) & (labels[:, 1] != DETECTION), 0])
        used = (numbers >= 0) & np.isin(labels[:, 0], with_truth)
        precision, recall = _run_coco(numbers[used], boxes[used], labels[used], self.backend, self.max_detections)
        place = {label: k for k, label in enumerate(with_truth.tolist())}
        ap = precision[..., -1]  # [T, R, K, A], at max_detections
        per_class = [ap[:, :, place[c], 0] if c in place else np.empty((1, 0)) for c in classes]
        return [
            *(_mean(ap[..., 0]), _mean(ap[IOU_50, ..., 0]), _mean(ap[IOU_75, ..., 0])),
            *(_mean(ap[..., area]) for area in (1, 2, 3)),
            *(_mean(recall[..., 0, limit]) for limit in (0, 1, 2)),
            *(_mean(recall[..., area, -1]) for area in (1, 2, 3)),
            *(_mean(values) for values in per_class),
            *(_mean(values[IOU_50]) for values in per_class),
        ]


def _run_coco(
    numbers: Array, boxes: Array, labels: Array, backend: Backend, max_detections: int
) -> tuple[Array, Array]:
    """Precision [T, R, K, A, M] and recall [T, K, A, M] at COCO's IoU thresholds, recalls, classes, areas and limits.

    The evaluators are called themselves. Through ``torchmetrics.detection.MeanAveragePrecision`` the precisions of the
    classes cost about twice the time, as it copies every IoU along with them; its thresholds, rounded to float32, move
    the result in the fifth digit; and pycocotools' summary, which it reads, says -1 for limits other than 100.

    Args:
        numbers: The image of each row [R], numbered in the order of evaluation.
        boxes: As the state [R, 5].
        labels: As the state [R, 2]; every label has ground truth.
        backend: The evaluator.
        max_detections: The last limit M; the first two are COCO's.
    """
    if not len(labels):
        return np.empty((10, 101, 0, 4, 3)), np.empty((10, 0, 4, 3))
    coco_class, eval_class = _load_backend(backend)
    images = [{"id": number} for number in np.unique(numbers).tolist()]
    categories = [{"id": label} for label in np.unique(labels[:, 0]).tolist()]
    sides = []
    for side in (labels[:, 1] != DETECTION, labels[:, 1] == DETECTION):
        coco = coco_class()
        annotations = _annotations(numbers[side], boxes[side], labels[side])
        coco.dataset = {"info": {}, "images": images, "categories": categories, "annotations": annotations}
        sides.append(coco)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its steps
        for coco in sides:
            coco.createIndex()
        evaluation = eval_class(*sides, "bbox")
        evaluation.params.maxDets = [1, 10, max_detections]
        evaluation.evaluate()
        evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"]), np.asarray(evaluation.eval["recall"])


def _load_backend(backend: Backend) -> tuple[Any, Any]:
    """The evaluator's classes of a data set and of an evaluation."""
    if backend == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        return COCO, COCOeval
    from faster_coco_eval import COCO, COCOeval_faster

    return COCO, COCOeval_faster


def _annotations(numbers: Array, boxes: Array, labels: Array) -> list[dict[str, Any]]:
    """COCO's annotations of some rows; their ids start at 1, as 0 means unmatched."""
    corners = boxes[:, :4].astype(np.float64)
    sizes = corners[:, 2:] - corners[:, :2]
    given = (labels[:, 1] != DETECTION) & ~np.isnan(boxes[:, 4])
    area = np.where(given, boxes[:, 4], sizes.prod(axis=1))
    columns = (
        numbers,
        labels[:, 0],
        np.hstack([corners[:, :2], sizes]),
        area,
        (labels[:, 1] == CROWD).astype(int),
        boxes[:, 4],
    )
    return [
        {"id": i, "image_id": image, "category_id": label, "bbox": box, "area": size, "iscrowd": crowd, "score": score}
        for i, (image, label, box, size, crowd, score) in enumerate(zip(*(c.tolist() for c in columns), strict=True), 1)
    ]


def _number_images(images: Array, world_size: int) -> Array:
    """The place of each image in the evaluation [I]: by id, then those without one; -1 for an id that came before.

    Sorting by id makes the result independent of the order in which processes saw the images: where scores are tied,
    COCO counts the earlier image first.
    """
    given = images[:, 1] == 1
    _, first = np.unique(images[given, 0], return_index=True)
    kept = np.concatenate([np.flatnonzero(given)[first], np.flatnonzero(~given)])
    numbers = np.full(len(images), -1)
    numbers[kept] = np.arange(len(kept))
    if len(images) - len(kept) >= world_size:  # more than a distributed sampler repeats
        warnings.warn(
            f"DetectionMAP: {len(images) - len(kept)} of {len(images)} images were left out because their id was given "
            "before. If they are different images (two data sets, ids that start anew in every batch), give them "
            "different ids or none.",
            stacklevel=2,
        )
    return numbers


def _mean(values: Array) -> float:
    """COCO's mean of the values that exist, -1 where none does."""
    values = values[values > -1]
    return float(values.mean()) if values.size else -1.0


def _check_scores(scores: Array) -> None:
    wrong = int(np.isnan(scores).sum())
    if wrong:
        raise ValueError(f"DetectionMAP: the scores of {wrong} of {len(scores)} detections are not a number (nan).")


def _check_labels(labels: Array, num_classes: int) -> None:
    wrong = labels[(labels[:, 0] < 0) | (labels[:, 0] >= num_classes)]
    if len(wrong):
        label, kind = wrong[0].tolist()
        what = "a detection" if kind == DETECTION else "a ground truth"
        raise ValueError(
            f"DetectionMAP: {what} has label {label}, but class_names names {num_classes} classes (labels 0 to "
            f"{num_classes - 1}); {len(wrong)} boxes have such labels."
        )


def _check_batch(preds: Any, targets: Any) -> None:
    for name, batch in (("preds", preds), ("targets", targets)):
        if not isinstance(batch, Sequence) or not all(isinstance(item, Mapping) for item in batch):
            raise ValueError(f"{name} must be a list with one dict of tensors per image, got {type(batch).__name__}.")
    if len(preds) != len(targets):
        raise ValueError(f"preds has {len(preds)} images but targets has {len(targets)}; one of each is expected.")


def _read_ids(image_ids: Sequence[int] | Tensor | None, count: int) -> list[tuple[int, int]]:
    """The id of each image, and whether it was given."""
    if image_ids is None:
        return [(0, 0)] * count
    items = image_ids.tolist() if isinstance(image_ids, Tensor) else list(image_ids)
    if len(items) != count:
        raise ValueError(f"image_ids has {len(items)} ids for {count} images; one per image is expected.")
    try:
        return [(operator.index(item), 1) for item in items]
    except TypeError:
        raise ValueError(f"image_ids must be integers, got {items}.") from None


def _detections(pred: Mapping[str, Tensor], where: str) -> tuple[Tensor, Tensor]:
    """The rows of the states `boxes` and `labels`."""
    boxes = _boxes(pred, where)
    labels = _integers(pred, "labels", where, boxes)
    scores = _column(pred, "scores", where, boxes)
    return _join(boxes, scores, labels, torch.full_like(labels, DETECTION))


def _objects(target: Mapping[str, Tensor], where: str) -> tuple[Tensor, Tensor]:
    """The rows of the states `boxes` and `labels`."""
    boxes = _boxes(target, where)
    labels = _integers(target, "labels", where, boxes)
    kinds = torch.full_like(labels, OBJECT)
    if target.get("iscrowd") is not None:
        crowd = _integers(target, "iscrowd", where, boxes).to(labels.device)
        kinds = torch.where(crowd != 0, CROWD, kinds)
    areas = boxes.new_full((len(boxes),), torch.nan)
    if target.get("area") is not None:
        areas = _column(target, "area", where, boxes)
    return _join(boxes, areas, labels, kinds)


def _join(boxes: Tensor, extra: Tensor, labels: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
    rows = torch.cat([boxes, extra.to(boxes)[:, None]], dim=1)
    return rows, torch.stack([labels, kinds], dim=1).to(torch.int32)


def _boxes(item: Mapping[str, Tensor], where: str) -> Tensor:
    boxes = _tensor(item, "boxes", where)
    if boxes.numel() == 0:
        boxes = boxes.reshape(0, 4)  # an image without boxes may come as an empty list made a tensor
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{where}['boxes'] has shape {tuple(boxes.shape)}; [N, 4] is expected: x1, y1, x2, y2.")
    return boxes.to(torch.float32)


def _column(item: Mapping[str, Tensor], key: str, where: str, boxes: Tensor) -> Tensor:
    values = _tensor(item, key, where)
    if values.numel() == 0:
        values = values.reshape(0)
    if values.shape != boxes.shape[:1]:
        raise ValueError(
            f"{where}[{key!r}] has shape {tuple(values.shape)}; [{len(boxes)}] is expected: one value per box."
        )
    return values


def _integers(item: Mapping[str, Tensor], key: str, where: str, boxes: Tensor) -> Tensor:
    values = _column(item, key, where, boxes)
    if values.numel() and (values.is_floating_point() or values.is_complex()):
        raise ValueError(f"{where}[{key!r}] has type {values.dtype}; integers are expected.")
    return values.to(torch.int32)


def _tensor(item: Mapping[str, Tensor], key: str, where: str) -> Tensor:
    if key not in item:
        raise ValueError(f"{where} has no {key!r}; it has {', '.join(map(repr, item)) or 'no keys'}.")
    if not isinstance(item[key], Tensor):
        raise ValueError(f"{where}[{key!r}] is a {type(item[key]).__name__}; a tensor is expected.")
    return item[key].detach()
