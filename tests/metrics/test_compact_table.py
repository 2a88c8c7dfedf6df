"""The compact form of a detection table: what it keeps, and how much AP changes."""

from dataclasses import replace

import numpy as np
import pytest

from lit_dense.metrics import compact_table
from lit_dense.metrics.bootstrap import resampled_ap
from lit_dense.metrics.calibration import true_positives
from lit_dense.metrics.compact_table import load_compact, load_image_ids, save_compact
from lit_dense.metrics.detection_table import ABSENT, CROWD, DETECTION, NOT_EXHAUSTIVE, OBJECT, DetectionTable
from lit_dense.metrics.evaluation import evaluate

CLASSES = {0: "a", 1: "b", 2: "c"}


def simulated(images=40, detections=60, seed=0, size=96.0) -> DetectionTable:
    """Images with objects, boxes near them of all qualities, and boxes elsewhere."""
    rng = np.random.default_rng(seed)
    rows: dict[str, list] = {name: [] for name in ("images", "boxes", "labels", "kinds", "scores")}

    def add(image, box, label, kind, score):
        for column, value in zip(rows.values(), (image, box, label, kind, score), strict=True):
            column.append(value)

    for image in range(images):
        corners = rng.uniform(0, 0.6 * size, (6, 2))
        objects = np.concatenate([corners, corners + rng.uniform(0.1 * size, 0.3 * size, (6, 2))], 1)
        labels = rng.integers(3, size=6)
        for number, (box, label) in enumerate(zip(objects, labels, strict=True)):
            add(image, box, label, CROWD if number == 5 else OBJECT, np.nan if number % 2 else 123.25)
        for _ in range(detections):
            chosen = rng.integers(6)
            near = rng.random() < 0.3
            box = objects[chosen] + rng.normal(0, 0.03 * size, 4) if near else rng.uniform(0, size, 4)
            box = np.concatenate([np.minimum(box[:2], box[2:]), np.maximum(box[:2], box[2:])])
            score = rng.beta(2, 1) if near else rng.beta(0.5, 4)
            add(image, box, labels[chosen] if near else rng.integers(3), DETECTION, score)
    return table_of(rows, np.arange(images) * 3 + 5)


def table_of(rows, ids) -> DetectionTable:
    types = {"images": np.int64, "boxes": np.float32, "labels": np.int32, "kinds": np.int32, "scores": np.float32}
    return DetectionTable(ids, **{name: np.array(values, types[name]) for name, values in rows.items()})


def again(table, tmp_path) -> DetectionTable:
    save_compact(tmp_path / "kept.npz", table)
    return load_compact(tmp_path / "kept.npz")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [40.0, 96.0, 2000.0])
def test_compact__ap_of_all_detections_is_within_half_a_thousandth(tmp_path, seed, size):
    table = simulated(seed=seed, size=size)
    before, after = (evaluate(one, CLASSES).numbers for one in (table, again(table, tmp_path)))
    for name in ("map", "map_50", "map_75", "map/a", "map/b", "map/c"):
        assert after[name] == pytest.approx(before[name], abs=5e-4), name


def test_compact__bootstrap_and_true_positives_hardly_change(tmp_path):
    table = simulated()
    kept = again(table, tmp_path)
    counts = np.random.default_rng(0).multinomial(40, np.full(40, 1 / 40), 30)
    assert np.abs(resampled_ap(kept, counts, 3).ap - resampled_ap(table, counts, 3).ap).max() < 1e-3
    assert true_positives(kept)[1].sum() == pytest.approx(true_positives(table)[1].sum(), abs=2)


def test_compact__ground_truth_ids_and_types_are_exact(tmp_path):
    table = simulated(images=5)
    kept = again(table, tmp_path)
    for name in vars(table):
        column, other = getattr(table, name), getattr(kept, name)
        assert column.dtype == other.dtype, name
        if name != "image_ids":
            truth, same = column[table.kinds != DETECTION], other[kept.kinds != DETECTION]
            assert np.array_equal(truth, same, equal_nan=name in ("boxes", "scores")), name
    assert np.array_equal(kept.image_ids, table.image_ids)
    assert np.array_equal(load_image_ids(tmp_path / "kept.npz"), table.image_ids)
    assert (np.diff(kept.images) >= 0).all()


def test_compact__rows_without_a_box_of_lvis_are_kept(tmp_path):
    rows = {"images": [0, 0, 1], "boxes": np.zeros((3, 4)), "labels": [4, 2, 1], "scores": [0, 0, 0]}
    table = table_of({**rows, "kinds": [ABSENT, NOT_EXHAUSTIVE, ABSENT]}, np.array([7, 9, 11]))
    kept = again(table, tmp_path)
    assert kept.kinds.tolist() == [ABSENT, NOT_EXHAUSTIVE, ABSENT]
    assert (kept.labels.tolist(), kept.images.tolist()) == ([4, 2, 1], [0, 0, 1])


def test_compact__scores_change_by_less_than_half_a_thousandth_also_at_the_ends(tmp_path):
    scores = [0.0, 1e-6, 0.001, 0.5, 0.9, 0.99999, 1.0]
    count = len(scores)
    rows = {"images": [0] * count, "boxes": [[0, 0, 9, 9]] * count, "labels": [70000 % 300] * count, "scores": scores}
    kept = again(table_of({**rows, "kinds": [DETECTION] * count}, np.array([1])), tmp_path)
    assert np.sort(kept.scores) == pytest.approx(scores, rel=5e-4, abs=1.1e-7)
    assert set(kept.labels.tolist()) == {100}


def test_compact__boxes_beyond_the_image_and_far_boxes_are_kept(tmp_path):
    boxes = [[-20, -3, 500, 40], [0, 0, 0, 0], [100.5, 7.25, 130, 44.75]]
    rows = {"images": [0, 1, 1], "boxes": boxes, "labels": [0, 1, 0], "scores": [0.5, 0.3, 0.4]}
    kept = again(table_of({**rows, "kinds": [DETECTION] * 3}, np.array([1, 2])), tmp_path)
    order = np.argsort(-kept.scores)
    assert kept.boxes[order][[0, 2]] == pytest.approx(np.array(boxes[:2], np.float32), abs=520 / 64 / 2)
    assert kept.boxes[order][1] == pytest.approx(np.array(boxes[2], np.float32), abs=130 / 64 / 2)


def test_compact__a_box_whose_rounding_would_cross_a_threshold_is_exact(tmp_path):
    """A step of the fine grid is a pixel; rounded, the first detection would have IoU 0.75."""
    boxes = [[0, 0, 100, 100], [0, 0, 74.6, 100], [0, 0, 16384, 16384]]
    rows = {"images": [0] * 3, "boxes": boxes, "labels": [0] * 3, "scores": [np.nan, 0.9, 0.1]}
    table = table_of({**rows, "kinds": [OBJECT, DETECTION, DETECTION]}, np.array([1]))
    kept = again(table, tmp_path)
    assert np.array_equal(kept.boxes[1], table.boxes[1])
    assert evaluate(kept, {0: "a"}).numbers["map"] == evaluate(table, {0: "a"}).numbers["map"]


def test_compact__a_small_object_in_a_large_image_is_not_matched_by_rounding(tmp_path):
    """On the coarse grid of 64 steps all of these boxes would be the same."""
    boxes = [[500, 500, 508, 508], [502, 503, 515, 518], [500.5, 500, 508, 508.5], [0, 0, 4000, 4000]]
    rows = {"images": [0] * 4, "boxes": boxes, "labels": [0] * 4, "scores": [np.nan, 0.9, 0.8, 0.1]}
    table = table_of({**rows, "kinds": [OBJECT, *[DETECTION] * 3]}, np.array([1]))
    before, after = (evaluate(one, {0: "a"}).numbers for one in (table, again(table, tmp_path)))
    assert after["map"] == before["map"] > 0


def test_compact__a_table_without_detections_or_images(tmp_path):
    empty = {"images": [], "boxes": np.zeros((0, 4)), "labels": [], "kinds": [], "scores": []}
    assert len(again(table_of(empty, np.zeros(0, np.int64)), tmp_path).labels) == 0
    assert again(table_of(empty, np.array([4, 8])), tmp_path).image_ids.tolist() == [4, 8]


def test_compact__a_detection_takes_few_bytes(tmp_path):
    table = simulated(images=100, detections=100)
    save_compact(tmp_path / "kept.npz", table, other=np.zeros(3))
    table.save(tmp_path / "all.npz")
    size = (tmp_path / "kept.npz").stat().st_size
    assert size < 80_000
    assert size < 0.5 * (tmp_path / "all.npz").stat().st_size
    with np.load(tmp_path / "kept.npz") as arrays:
        assert arrays["other"].tolist() == [0, 0, 0]


def test_compact__scores_of_one_class_keep_their_order(tmp_path):
    table = simulated(images=1, detections=300)
    table = replace(table, labels=np.zeros_like(table.labels))
    kept = again(table, tmp_path).of(DETECTION)
    exact = np.sort(table.of(DETECTION).scores)[::-1]
    assert (np.diff(kept.scores) <= 0).all()
    assert kept.scores == pytest.approx(exact, rel=1 / compact_table.LOGIT_STEPS)
