"""Evaluation by pycocotools (https://pypi.org/project/pycocotools), COCO's own evaluator."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..detection_table import DETECTION, NOT_EXHAUSTIVE, DetectionTable
from .base import Backend, ClassMatches, Protocol, Tables, image_entries, object_columns


class PycocotoolsBackend(Backend):
    """The evaluator of pycocotools, with the additional rules of LVIS.

    Args:
        coco: pycocotools' class ``COCO``.
        coco_eval: pycocotools' class ``COCOeval``.
    """

    name = "pycocotools"

    def __init__(self, coco: Any, coco_eval: Any) -> None:
        self._coco, self._coco_eval = coco, coco_eval

    def tables(
        self, rows: DetectionTable, classes: Mapping[int, str], protocol: Protocol, limits: Sequence[int]
    ) -> Tables:
        """See :meth:`Backend.tables`."""
        with _quiet():
            evaluator = self._evaluator(_evaluated_rows(rows) if protocol == "lvis" else rows, classes, limits)
            evaluator.evaluate()
            if protocol == "lvis":
                _ignore_unmatched(evaluator, rows)
            evaluator.accumulate()
        results = evaluator.eval
        return Tables(results["precision"][..., -1], results["scores"][..., -1], results["recall"])

    def matches(self, rows: DetectionTable, classes: Mapping[int, str], limit: int) -> list[ClassMatches]:
        """See :meth:`Backend.matches`."""
        with _quiet():
            evaluator = self._evaluator(rows, classes, [limit])
            evaluator.params.areaRng, evaluator.params.areaRngLbl = evaluator.params.areaRng[:1], ["all"]
            evaluator.evaluate()
        return [
            ClassMatches(
                image=int(one["image_id"]),
                label=int(one["category_id"]),
                scores=np.asarray(one["dtScores"], np.float64),
                matched=one["dtMatches"] > 0,
                ignored=one["dtIgnore"].astype(bool),
                num_objects=int((~one["gtIgnore"].astype(bool)).sum()),
            )
            for one in evaluator.evalImgs
            if one is not None
        ]

    def _evaluator(self, rows: DetectionTable, classes: Mapping[int, str], limits: Sequence[int]) -> Any:
        header: dict[str, Any] = {
            "info": {},
            "images": image_entries(rows, "coco"),
            "categories": [{"id": label, "name": name} for label, name in classes.items()],
        }
        objects = object_columns(rows)
        detections = rows.of(DETECTION)
        boxes = detections.xywh
        detection_columns = {
            "images": detections.images,
            "labels": detections.labels,
            "boxes": boxes,
            "area": boxes[:, 2:].prod(1),
            "iscrowd": np.zeros(len(boxes), int),
            "score": detections.scores.astype(np.float64),
        }
        truth, results = self._coco(), self._coco()
        truth.dataset = {**header, "annotations": _annotations(objects)}
        results.dataset = {**header, "annotations": _annotations(detection_columns)}
        truth.createIndex()
        results.createIndex()
        evaluator = self._coco_eval(truth, results, "bbox")
        evaluator.params.maxDets = list(limits)
        return evaluator


def _annotations(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Make COCO annotations with ids from 1, because pycocotools interprets a match with id 0 as no match."""
    keys = {"images": "image_id", "labels": "category_id", "boxes": "bbox"}
    names = [keys.get(name, name) for name in columns]
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [{"id": number, **dict(zip(names, row, strict=True))} for number, row in enumerate(rows, start=1)]


def _evaluated_rows(rows: DetectionTable) -> DetectionTable:
    """Remove detections of classes that are neither annotated in their image nor known to be absent."""
    pairs = rows.images * (int(rows.labels.max(initial=0)) + 1) + rows.labels
    is_detection = rows.kinds == DETECTION
    return rows.where(~is_detection | np.isin(pairs, pairs[~is_detection & (rows.kinds != NOT_EXHAUSTIVE)]))


def _ignore_unmatched(evaluator: Any, rows: DetectionTable) -> None:
    """Ignore unmatched detections of classes that are not annotated exhaustively in their image."""
    listed = rows.of(NOT_EXHAUSTIVE)
    partly = set(zip(listed.images.tolist(), listed.labels.tolist(), strict=True))
    for one in evaluator.evalImgs:
        if one is not None and (one["image_id"], one["category_id"]) in partly:
            one["dtIgnore"] = np.logical_or(one["dtIgnore"], one["dtMatches"] == 0)


def _quiet() -> contextlib.redirect_stdout[io.StringIO]:
    """Suppress the output of pycocotools."""
    return contextlib.redirect_stdout(io.StringIO())
