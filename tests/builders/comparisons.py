"""Folders of comparisons without any training: what workers would have left, with simulated detections."""

from pathlib import Path

import numpy as np

from lit_dense.compare.files import RECORD, RESULT, ROWS, TABLES, save_tables, write_json
from lit_dense.compare.plan import Run
from lit_dense.metrics.detection_table import DETECTION, OBJECT, DetectionTable
from lit_dense.metrics.evaluation import evaluate

NUM_IMAGES, OBJECTS_PER_IMAGE = 60, 3


DATA = {
    "train": {"images": 200, "boxes": 55, "digest": "0123456789abcdef", "image_bytes": 4000},
    "val": {"images": NUM_IMAGES, "boxes": 180, "digest": "fedcba9876543210", "image_bytes": 1000},
}
VERSIONS = {"python": "3.11", "lit-dense": "0.1.0", "code": "c0de", "torch": "2.9.0", "torchvision": "0.24.0"}


def write_folder(
    out: Path, finders: dict, seeds=(0, 1, 2), classes=("cat", "dog"), training_boxes=(50, 5), shared=None, **found
) -> Path:
    """A comparison whose runs find this share of the objects; ``found`` is put into their results."""
    out.mkdir(parents=True, exist_ok=True)
    shared = shared or {"model": {"frequency_bounds": [10, 100]}}
    write_json(out / RECORD, {"names": list(finders), "baseline": next(iter(finders)), "shared": shared})
    for number, (name, share) in enumerate(finders.items()):
        for seed in seeds:
            generator = np.random.default_rng([number, seed])
            rows = detections(generator, share, len(classes))
            write_run(out, name, seed, rows, classes, training_boxes, **found)
    return out


def write_run(out, name, seed, rows, classes, training_boxes, config=None, **found):
    run = Run(name, seed, ["--config=base.yaml", f"--model.loss={name}"], config or {"model": {}}, "/data")
    run.save(out)
    folder = run.folder(out)
    evaluation = evaluate(rows, dict(enumerate(classes)))
    rows.save(folder / ROWS)
    save_tables(folder / TABLES, evaluation)
    numbers = evaluation.numbers
    half = {"step": 5, "map": numbers["map"] / 2, "map_50": numbers["map_50"] / 2}
    result = {
        "numbers": numbers,
        "curve": [half, {"step": 10, "map": numbers["map"], "map_50": numbers["map_50"]}],
        "step_seconds": 0.1,
        "seconds": 3.0,
        "memory_bytes": 2.0**30,
        "cuda_bytes": None,
        "steps": 10,
        "training_boxes": list(training_boxes),
        "machine": {"system": "Linux", "cores": 2},
        "versions": {"python": "3.11"},
        **found,
    }
    write_json(folder / RESULT, result)


def detections(generator: np.random.Generator, share: float, num_classes: int) -> DetectionTable:
    """Objects that are the same for every generator, and detections of a share of them, each among false ones."""
    places = np.random.default_rng(99)
    rows: dict[str, list] = {"images": [], "boxes": [], "labels": [], "kinds": [], "scores": []}

    def add(image, box, label, kind, score):
        for column, value in zip(rows.values(), (image, box, label, kind, score), strict=True):
            column.append(value)

    for image in range(NUM_IMAGES):
        for number in range(OBJECTS_PER_IMAGE):
            left, top = places.uniform(0, 60, 2) + number * 100
            box, label = (left, top, left + 30, top + 30), int(places.integers(num_classes))
            add(image, box, label, OBJECT, np.nan)
            if generator.random() < share:
                add(image, box, label, DETECTION, generator.uniform(0.5, 1))
            else:
                add(image, (left + 40, top, left + 70, top + 30), label, DETECTION, generator.uniform(0.2, 0.9))
    types = {"images": np.int64, "boxes": np.float32, "labels": np.int32, "kinds": np.int32, "scores": np.float32}
    columns = {name: np.array(values, types[name]) for name, values in rows.items()}
    return DetectionTable(np.arange(NUM_IMAGES) * 7 + 1, **columns)
