"""Random images, and what DetectionMAP is compared with: pycocotools on plain JSON."""

import contextlib
import io
import json
import warnings

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lit_dense.metrics import DetectionMAP
from lit_dense.metrics.detection_table import ABSENT, CROWD, DETECTION, NOT_EXHAUSTIVE, OBJECT, DetectionTable

NAMES = ["cat", "dog", "bird", "fish"]
STATS = ["map", "map_50", "map_75", "map_small", "map_medium", "map_large", "mar_1", "mar_10", "mar_100"]
STATS += ["mar_small", "mar_medium", "mar_large"]
BOX, ONE = torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64)
PRED, TARGET = {"boxes": BOX, "scores": torch.ones(1), "labels": ONE}, {"boxes": BOX, "labels": ONE}


def as_json(boxes, labels, image_id, first_id, **extra):
    boxes, labels = boxes.double().tolist(), labels.tolist()
    return [
        {
            "id": first_id + i,
            "image_id": image_id,
            "category_id": label,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": 0,
            **{key: values[i].item() for key, values in extra.items()},
        }
        for i, ((x1, y1, x2, y2), label) in enumerate(zip(boxes, labels, strict=True))
    ]


def pycocotools_evaluation(images, num_classes, max_detections=100, classes=None):
    truth, results = [], []
    for pred, target, image_id in images:
        extra = {key: target[key] for key in ("iscrowd", "area") if key in target}
        truth += as_json(target["boxes"], target["labels"], image_id, len(truth) + 1, **extra)
        results += as_json(pred["boxes"], pred["labels"], image_id, len(results) + 1, score=pred["scores"])
    header = {
        "info": {},
        "images": [{"id": image_id} for _, _, image_id in images],
        "categories": [{"id": c} for c in range(num_classes)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        gt, dt = COCO(), COCO()
        for coco, annotations in ((gt, truth), (dt, results)):
            coco.dataset = json.loads(json.dumps({**header, "annotations": annotations}))
            coco.createIndex()
        evaluation = COCOeval(gt, dt, "bbox")
        evaluation.params.maxDets = [1, 10, max_detections]
        if classes is not None:
            evaluation.params.catIds = classes
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def reference(images):
    expected = dict(zip(STATS, pycocotools_evaluation(images, len(NAMES)).stats, strict=True))
    for c, name in enumerate(NAMES):  # COCO's own way to the numbers of a class: an evaluation of its own
        stats = pycocotools_evaluation(images, len(NAMES), classes=[c]).stats
        expected[f"map/{name}"], expected[f"map_50/{name}"] = stats[0], stats[1]
    return expected


def update(metric, images, batch=3, with_ids=True):
    for start in range(0, len(images), batch):
        preds, targets, ids = zip(*images[start : start + batch], strict=True)
        metric.update(list(preds), list(targets), list(ids) if with_ids else None)


def compute(images, with_ids=True, **arguments):
    """The metric's result as plain numbers."""
    metric = DetectionMAP(NAMES, **arguments)
    update(metric, images, with_ids=with_ids)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The ``compute`` method")
        return {key: value.item() for key, value in metric.compute().items()}


def make_images(count, seed=0, num_classes=4):
    """Random images with jittered, duplicated, missed and made-up detections; every fourth has no ground truth."""
    rng = np.random.default_rng(seed)

    def some_boxes(n):
        corner, size = rng.uniform(0, 200, (n, 2)), rng.uniform(5, 120, (n, 2))
        return np.hstack([corner, corner + size])

    images = []
    for i in range(count):
        truth = some_boxes(0 if i % 4 == 3 else rng.integers(1, 6))
        labels = rng.integers(0, num_classes, len(truth))
        source = rng.integers(0, len(truth), 8) if len(truth) else np.zeros(0, int)
        boxes = np.vstack([truth[source] + rng.normal(0, 4, (len(source), 4)), some_boxes(4)])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        pred = {
            "boxes": torch.tensor(boxes, dtype=torch.float32),
            "scores": torch.tensor(rng.integers(1, 20, len(boxes)) / 20, dtype=torch.float32),  # with ties
            "labels": torch.tensor(np.concatenate([labels[source], rng.integers(0, num_classes, 4)])),
        }
        target = {"boxes": torch.tensor(truth, dtype=torch.float32), "labels": torch.tensor(labels)}
        images.append((pred, target, 100 - i))
    return images


SIDES = [8.0, 16.0, 31.5, 32.0, 32.5, 64.0, 95.5, 96.0, 97.0]  # on both sides of 32 and 96
AREAS = [np.nan, np.nan, 0, 50, 1023.5, 1024, 1024.5, 9216, 9217]
SCORES = [0.05, 0.3, 0.31, 0.5, 0.7, 1.0]


def random_rows(seed, lvis=False, crowds=True):
    """Up to seven images of up to four classes: boxes on a grid, tied scores, areas on the borders, empty images."""
    rng = np.random.default_rng(seed)
    num_images, num_classes = rng.integers(0, 8), rng.integers(1, 5)
    rows = []

    def add(image, kind, box, number):
        rows.append((image, rng.integers(num_classes), kind, box, number))

    def box():
        corner = rng.integers(0, 4, 2) * 8.0
        return (*corner, *(corner + rng.choice(SIDES, 2)))

    for image in range(num_images):
        for _ in range(rng.integers(0, 14)):
            add(image, DETECTION, box(), rng.choice(SCORES))
        for _ in range(rng.integers(0, 6)):
            add(image, CROWD if crowds and rng.random() < 0.25 else OBJECT, box(), rng.choice(AREAS))
        for kind in (ABSENT, NOT_EXHAUSTIVE) * lvis:
            for _ in range(rng.integers(0, 3)):
                add(image, kind, (0, 0, 0, 0), np.nan)
    images, labels, kinds, boxes, scores = zip(*rows, strict=True) if rows else [()] * 5
    return DetectionTable(
        image_ids=np.arange(num_images) + 100,
        images=np.array(images, np.int64),
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int32),
        kinds=np.array(kinds, np.int32),
        scores=np.array(scores, np.float32),
    ), {label: f"class {label}" for label in range(num_classes)}


def rows_of(*rows):
    """Rows of image, kind, box, label and score."""
    images, kinds, boxes, labels, scores = zip(*rows, strict=True)
    return DetectionTable(
        image_ids=np.arange(max(images) + 1),
        images=np.array(images),
        boxes=np.array(boxes, np.float32),
        labels=np.array(labels, np.int32),
        kinds=np.array(kinds, np.int32),
        scores=np.array(scores, np.float32),
    )
