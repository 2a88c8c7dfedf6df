"""The confusion matrix against a matrix counted one detection after another."""

import dataclasses

import numpy as np
import pytest
from hotcoco import COCO, COCOeval

from lit_dense.metrics.confusion import confusion_matrix
from lit_dense.metrics.detection_table import ABSENT, CROWD, DETECTION, NOT_EXHAUSTIVE, OBJECT, DetectionTable
from tests.builders.detection_images import random_rows, rows_of

A, FAR = (0, 0, 10, 10), (200, 200, 220, 220)


def overlap(a, b, of_union=True):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    area_a, area_b = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    return w * h / (area_a + area_b - w * h if of_union else area_a)


def counted_one_by_one(rows, num_classes, score):
    matrix = np.zeros((num_classes + 1, num_classes + 1), int)
    boxes = rows.boxes.astype(float)
    for image in range(len(rows.image_ids)):
        mine = [r for r in range(len(rows.images)) if rows.images[r] == image]
        detections = [r for r in mine if rows.kinds[r] == DETECTION and rows.scores[r] >= np.float32(score)]
        detections.sort(key=lambda r: -rows.scores[r])
        free = [r for r in mine if rows.kinds[r] == OBJECT]
        crowds = [r for r in mine if rows.kinds[r] == CROWD]
        for d in detections:
            best = max(free, key=lambda o: (overlap(boxes[d], boxes[o]), o), default=None)
            if best is not None and overlap(boxes[d], boxes[best]) >= 0.5:
                matrix[rows.labels[best], rows.labels[d]] += 1
                free.remove(best)
            elif not any(
                rows.labels[c] == rows.labels[d] and overlap(boxes[d], boxes[c], of_union=False) >= 0.5 for c in crowds
            ):
                matrix[-1, rows.labels[d]] += 1
        for o in free:
            matrix[rows.labels[o], -1] += 1
    return matrix


@pytest.mark.parametrize("score", [0.05, 0.3, 0.7])
@pytest.mark.parametrize("seed", range(30))
def test_confusion_matrix__equals_counting_one_detection_after_another(seed, score):
    rows, classes = random_rows(seed)
    expected = counted_one_by_one(rows, len(classes), score)
    assert confusion_matrix(rows, list(classes), score).tolist() == expected.tolist()


@pytest.mark.parametrize("seed", range(30))
def test_confusion_matrix__equals_hotcoco_where_there_are_no_crowds_and_no_equal_scores(seed):
    rows, classes = random_rows(seed, crowds=False)
    rng = np.random.default_rng(seed)
    rows = dataclasses.replace(rows, scores=rng.permutation(len(rows.scores)).astype(np.float32) / len(rows.scores))
    rows = dataclasses.replace(rows, scores=np.where(rows.kinds == DETECTION, rows.scores, np.float32(np.nan)))
    objects, detections = rows.of(OBJECT), rows.of(DETECTION)
    categories = [{"id": label, "name": name} for label, name in classes.items()]
    images = [{"id": i} for i in range(len(rows.image_ids))]
    truth = COCO.from_arrays(images, categories, objects.images, objects.labels, objects.xywh)
    table = np.column_stack([detections.images, detections.xywh, detections.scores, detections.labels])
    evaluator = COCOeval(truth, truth.load_res(table.astype(float)), "bbox")
    expected = evaluator.confusion_matrix(0.5, len(rows.images), 0.3)["matrix"]
    assert confusion_matrix(rows, list(classes), 0.3).tolist() == expected.tolist()


def test_confusion_matrix__labels_need_not_start_at_0():
    rows = rows_of((0, DETECTION, A, 9, 0.9), (0, OBJECT, A, 5, np.nan))
    assert confusion_matrix(rows, [5, 7, 9], 0.3).tolist() == [[0, 0, 1, 0], [0] * 4, [0] * 4, [0] * 4]


def test_confusion_matrix__detections_match_objects_of_their_own_image_alone():
    rows = rows_of(
        (0, DETECTION, A, 0, 0.4), (0, OBJECT, A, 0, np.nan), (1, DETECTION, A, 0, 0.9), (1, OBJECT, FAR, 0, np.nan)
    )
    assert confusion_matrix(rows, [0], 0.3).tolist() == [[1, 1], [1, 0]]


def test_confusion_matrix__the_second_best_object_is_taken_where_the_best_is():
    near = (0, 0, 10, 8)  # IoU .8 with A
    rows = rows_of(
        (0, DETECTION, A, 0, 0.9), (0, DETECTION, A, 1, 0.8), (0, OBJECT, near, 1, np.nan), (0, OBJECT, A, 0, np.nan)
    )
    assert confusion_matrix(rows, [0, 1], 0.3).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize(("height", "counted"), [(20, 0), (21, 1)])
def test_confusion_matrix__a_detection_half_inside_a_crowd_of_its_class_is_left_out(height, counted):
    crowd = (0, 0, 100, 10)
    rows = rows_of((0, DETECTION, (0, 0, 10, height), 0, 0.9), (0, CROWD, crowd, 0, np.nan))
    assert confusion_matrix(rows, [0, 1], 0.3)[-1].tolist() == [counted, 0, 0]
    other = rows_of((0, DETECTION, (0, 0, 10, height), 1, 0.9), (0, CROWD, crowd, 0, np.nan))
    assert confusion_matrix(other, [0, 1], 0.3)[-1].tolist() == [0, 1, 0]


def test_confusion_matrix__a_crowd_does_not_hide_a_detection_that_matches_an_object_or_lies_in_another_image():
    crowd = (0, 0, 100, 100)
    rows = rows_of(
        (0, DETECTION, A, 0, 0.9), (0, OBJECT, A, 0, np.nan), (0, CROWD, crowd, 0, np.nan), (1, DETECTION, A, 0, 0.9)
    )
    assert confusion_matrix(rows, [0], 0.3).tolist() == [[1, 0], [1, 0]]


def test_confusion_matrix__boxes_without_area_match_nothing():
    point = (5, 5, 5, 5)
    rows = rows_of((0, DETECTION, point, 0, 0.9), (0, OBJECT, point, 0, np.nan), (0, CROWD, point, 0, np.nan))
    assert confusion_matrix(rows, [0], 0.3).tolist() == [[0, 1], [1, 0]]


def test_confusion_matrix__a_score_equal_to_the_threshold_counts():
    rows = rows_of((0, DETECTION, A, 0, 0.7), (0, OBJECT, A, 0, np.nan))
    assert float(rows.scores[0]) < 0.7  # kept as float32
    assert confusion_matrix(rows, [0], 0.7)[0, 0] == 1


def test_confusion_matrix__with_lvis_classes_that_are_not_annotated_do_not_count():
    row = {"boxes": [A, FAR, FAR, FAR], "scores": [np.nan, 0.9, 0.9, 0.9]}
    for kind, counted in ((ABSENT, 1), (NOT_EXHAUSTIVE, 0), (None, 0)):
        kinds, labels = [OBJECT, DETECTION, DETECTION], [0, 0, 1]
        if kind is not None:
            kinds, labels = [*kinds, kind], [*labels, 1]
        rows = DetectionTable(
            np.array([7]),
            np.zeros(len(kinds), np.int64),
            np.array(row["boxes"][: len(kinds)], np.float32),
            np.array(labels, np.int32),
            np.array(kinds, np.int32),
            np.array([*row["scores"][:3], *[np.nan] * (len(kinds) - 3)], np.float32),
        )
        matrix = confusion_matrix(rows, [0, 1], 0.3, lvis=True)
        assert matrix[2].tolist() == [1, counted, 0]  # class 0 is annotated, so its false positive counts
        assert confusion_matrix(rows, [0, 1], 0.3)[2].tolist() == [1, 1, 0]
