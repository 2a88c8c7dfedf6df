import numpy as np

from lit_dense.data.checks.duplicate_annotations import _first_of_equals
from lit_dense.data.formats.annotations import TABLE
from tests.builders.box_entries import check_entries
from tests.builders.problems import whats


def test_duplicate_annotations__are_reported_with_the_first_and_kept():
    data, problems = check_entries([(5, 5, 10, 10), (5, 5, 10, 10.1), (5, 5, 10, 10), (5, 5, 10.001, 10)], num_images=1)
    (problem,) = problems.found
    assert problem.what == "annotations given more than once (same image, category and box)"
    assert problem.count == 2
    assert problem.examples[0] == "annotation 2 of image 1 (1.png): box [5, 5, 10, 10] of category 3, as annotation 0"
    assert len(data.boxes) == 4


def test_duplicate_annotations__equal_boxes_of_other_images_are_none():
    assert not whats(check_entries([(5, 5, 10, 10)] * 4, num_images=4)[1])


def test_first_of_equals__is_what_comparing_all_gives():
    rng = np.random.default_rng(0)
    table = np.zeros(3000, TABLE)
    for name in ("image_id", "category_id"):
        table[name] = rng.integers(0, 4, 3000)
    table["bbox"] = rng.integers(0, 3, (3000, 4)) * np.where(rng.random((3000, 1)) < 0.5, 1, -1.0)  # with -0.0
    keys = [(row["image_id"], row["category_id"], *(row["bbox"] + 0.0).tolist()) for row in table]
    rows = np.sort(rng.permutation(3000)[:2000])
    kept = [keys[row] for row in rows]
    assert _first_of_equals(table, rows).tolist() == [kept.index(key) for key in kept]
    assert _first_of_equals(table, rows[:0]).tolist() == []
