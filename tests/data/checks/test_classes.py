from pathlib import Path

import numpy as np
import pytest

from lit_dense.data import CocoData
from lit_dense.data.checks.classes import _bare, check_boxes, check_classes
from lit_dense.data.problems import KEPT
from tests.builders.problems import problems_of


def split(path, categories, boxes, crowds=()):
    """One image with a box of each of some category ids, of which some are crowds."""
    data = CocoData.without_boxes(["a.png"], np.full((1, 2), 30))
    number = len(boxes)
    fields = {
        "path": Path(path),
        "categories": [{"id": key, "name": name} for key, name in categories.items()],
        "offsets": np.array([0, number]),
        "annotation_ids": np.arange(number) + 100,
        "category_ids": np.array(boxes, np.int64),
        "boxes": np.tile(np.float32([0, 0, 5, 5]), (number, 1)),
        "area": np.full(number, 25.0),
        "iscrowd": np.isin(np.arange(number), crowds),
    }
    return CocoData(**{**vars(data), **fields})


CLASSES = {1: "red", 2: "blue"}


def test_check_boxes__all_crowds_cannot_be_trained_on():
    (problem,) = problems_of(check_boxes, {"train": split("a.json", CLASSES, [1, 2], [0, 1])}).errors(strict=False)
    assert problem.what == "all boxes of train are crowds (iscrowd 1), so there is nothing to train on"
    assert problem.examples == ("annotation 100 of image 1 (a.png)", "annotation 101 of image 1 (a.png)")
    assert "set it to 0" in problem.cure


def test_check_boxes__most_boxes_are_crowds():
    (problem,) = problems_of(check_boxes, {"train": split("a.json", CLASSES, [1, 2, 2], [0, 2])}).found
    assert problem.what == "more than half of the 3 boxes of train are crowds (iscrowd 1)"
    assert (problem.count, problem.repair) == (2, KEPT)
    assert not problems_of(check_boxes, {"train": split("a.json", CLASSES, [1, 2], [0])}).found


def test_check_boxes__evaluation_without_objects_is_possible_and_reported():
    for boxes, crowds, what in (([], [], "no boxes in val"), ([1], [0], "all boxes of val are crowds (iscrowd 1)")):
        (problem,) = problems_of(check_boxes, {"val": split("a.json", CLASSES, boxes, crowds)}).found
        assert problem.what == f"{what}: its mAP is -1"
        assert problem.repair == KEPT


def test_check_classes__classes_without_boxes_are_a_hint():
    splits = {"train": split("a.json", CLASSES, [2, 1], [1]), "val": split("b.json", CLASSES, [2])}
    problems = problems_of(check_classes, splits, splits)
    assert not problems.found
    assert [hint.what for hint in problems.hints] == [
        "classes without a box in train, which are never learnt",
        "classes without a box in val, which are left out of mAP",
    ]
    assert problems.hints[0].examples == ("category 1: red",)


def test_check_classes__classes_that_are_evaluated_and_never_trained():
    splits = {"train": split("a.json", CLASSES, [2]), "val": split("b.json", CLASSES, [1, 2])}
    (problem,) = problems_of(check_classes, splits, splits).found
    assert problem.what == "classes with boxes in val and none in train, whose AP will be 0"
    assert problem.examples == ("category 1: red",)
    assert not problems_of(check_classes, splits, ["train"]).found


def test_check_classes__the_empty_first_category_of_roboflow_is_a_separate_hint():
    classes = {0: "cells", 1: "red", 2: "blue"}
    splits = {"train": split("a.json", classes, [1, 2]), "val": split("b.json", classes, [1, 2])}
    (hint,) = problems_of(check_classes, splits, splits).hints
    assert hint.examples == ("category 0: cells",)
    assert "Roboflow" in hint.what
    assert "remove it from the categories" in hint.cure
    used = {"train": split("a.json", classes, [0, 1, 2])}
    assert not problems_of(check_classes, used, used).hints


def test_check_classes__names_that_read_alike():
    classes = {
        1: "Traffic light",
        2: "traffic_light ",
        3: "bus",
        4: "bus",
        5: "class 1 2",
        6: "class 12",
        7: "C",
        8: "C++",
    }
    splits = {"train": split("a.json", classes, list(classes))}
    (problem,) = problems_of(check_classes, splits, splits).found
    assert problem.examples == ("1 'Traffic light', 2 'traffic_light '", "3 'bus', 4 'bus'")
    assert problem.repair == KEPT
    assert not problems_of(check_classes, splits, []).found


@pytest.mark.parametrize(
    ("name", "bare"), [("  T-Shirt\u00a0", "tshirt"), ("fire  truck", "firetruck"), ("10 - 20", "10 20"), ("_", "_")]
)
def test_bare__leaves_the_letters_and_digits_of_a_name(name, bare):
    assert _bare(name) == bare
