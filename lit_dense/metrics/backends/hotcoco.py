"""Evaluation by hotcoco (https://pypi.org/project/hotcoco), a fast evaluator for COCO and LVIS."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..detection_table import DETECTION, DetectionTable
from .base import (
    NUM_AREAS,
    NUM_RECALLS,
    NUM_THRESHOLDS,
    Backend,
    ClassMatches,
    Protocol,
    Tables,
    image_entries,
    object_columns,
)


class HotcocoBackend(Backend):
    """The evaluator of hotcoco.

    Args:
        coco: hotcoco's class ``COCO``.
        coco_eval: hotcoco's class ``COCOeval``.
    """

    name = "hotcoco"

    def __init__(self, coco: Any, coco_eval: Any) -> None:
        self._coco, self._coco_eval = coco, coco_eval

    def tables(
        self, rows: DetectionTable, classes: Mapping[int, str], protocol: Protocol, limits: Sequence[int]
    ) -> Tables:
        """See :meth:`Backend.tables`."""
        with _panics_as_errors():
            evaluator = self._evaluator(rows, classes, protocol, limits)
            evaluator.evaluate()
            evaluator.accumulate()
            results = evaluator.eval
        shape = (NUM_THRESHOLDS, NUM_RECALLS, len(classes), NUM_AREAS, len(limits))
        return Tables(
            precision=results["precision"].reshape(shape)[..., -1],
            scores=results["scores"].reshape(shape)[..., -1],
            recall=results["recall"].reshape(NUM_THRESHOLDS, *shape[2:]),
        )

    def matches(self, rows: DetectionTable, classes: Mapping[int, str], limit: int) -> list[ClassMatches]:
        """See :meth:`Backend.matches`."""
        with _panics_as_errors():
            evaluator = self._evaluator(rows, classes, "coco", [limit])
            evaluator.params.area_rng, evaluator.params.area_rng_lbl = evaluator.params.area_rng[:1], ["all"]
            evaluator.evaluate()
            results = evaluator.eval_imgs
        return [
            ClassMatches(
                image=one["image_id"],
                label=one["category_id"],
                scores=np.asarray(one["dtScores"], np.float64),
                matched=np.asarray(one["dtMatched"], bool).reshape(NUM_THRESHOLDS, -1),
                ignored=np.asarray(one["dtIgnore"], bool).reshape(NUM_THRESHOLDS, -1),
                num_objects=int((~np.asarray(one["gtIgnore"], bool)).sum()),
            )
            for one in results
            if one is not None
        ]

    def _evaluator(
        self, rows: DetectionTable, classes: Mapping[int, str], protocol: Protocol, limits: Sequence[int]
    ) -> Any:
        objects, detections = object_columns(rows), rows.of(DETECTION)
        truth = self._coco.from_arrays(
            image_entries(rows, protocol),
            [{"id": label, "name": name} for label, name in classes.items()],
            objects["images"],
            objects["labels"],
            objects["boxes"],
            ids=np.arange(1, len(objects["boxes"]) + 1),
            area=objects["area"],
            iscrowd=objects["iscrowd"],
        )
        table = np.empty((len(detections.images), 7))
        table[:, 0], table[:, 1:5] = detections.images, detections.xywh
        table[:, 5], table[:, 6] = detections.scores, detections.labels
        evaluator = self._coco_eval(truth, truth.load_res(table), "bbox", lvis_style=protocol == "lvis")
        evaluator.params.max_dets = list(limits)
        return evaluator


@contextmanager
def _panics_as_errors() -> Iterator[None]:
    """Raise panics of Rust code as RuntimeError; they are not an ``Exception``, so handlers would not catch them."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(f"hotcoco: {error}") from error
