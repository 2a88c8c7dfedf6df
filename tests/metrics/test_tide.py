"""TIDE: a worked value for each type of error, invariants, and the values of its authors' code."""

import numpy as np
import pytest

from lit_dense.core.errors import UsageError
from lit_dense.metrics import tide as module
from lit_dense.metrics.detection_table import ABSENT, CROWD, DETECTION, NOT_EXHAUSTIVE, OBJECT, DetectionTable
from lit_dense.metrics.evaluation import evaluate
from lit_dense.metrics.tide import CORRECT, ERRORS, SPECIAL, UNCOUNTED, tide
from tests.builders.detection_images import rows_of

CAT, DOG = 0, 1
HERE, SHIFTED, OVER, FAR = (0, 0, 10, 10), (0, 0, 10, 3), (0, 0, 10, 8), (50, 50, 60, 60)
"""An object's box, and boxes whose IoU with it is 0.3, 0.8 and 0."""


def found_cat(image, score=0.5):
    return [(image, OBJECT, HERE, CAT, np.nan), (image, DETECTION, HERE, CAT, score)]


def object_of(label=CAT, box=HERE, image=0):
    return (image, OBJECT, box, label, np.nan)


def detection(label=CAT, box=HERE, score=0.9, image=0):
    return (image, DETECTION, box, label, score)


ONE_OF_TWO = pytest.approx(51 / 101)  # AP if precision is 1 at recalls up to .5
WRONG_FIRST = pytest.approx(0.5)  # AP if the first of two detections is wrong and all objects are found


@pytest.mark.parametrize(
    ("kind", "rows", "before", "after"),
    [
        # a cat is detected as a dog; the dogs have no object, so their AP does not exist
        ("classification", [object_of(), detection(DOG), *found_cat(1)], ONE_OF_TWO, 1),
        ("localisation", [object_of(), detection(box=SHIFTED), *found_cat(1)], pytest.approx(51 / 101 / 2), 1),
        ("both", [object_of(DOG), detection(box=SHIFTED), *found_cat(1)], WRONG_FIRST, 1),
        ("duplicate", [*found_cat(0, 0.95), detection(box=OVER, score=0.9), *found_cat(1)], None, 1),
        ("background", [object_of(DOG), detection(box=FAR), *found_cat(1)], WRONG_FIRST, 1),
        ("missed", [object_of(), *found_cat(1)], ONE_OF_TWO, 1),
    ],
)
def test_tide__worked_value_of_each_type(kind, rows, before, after):
    found = tide(rows_of(*rows), 2)
    number = ERRORS.index(kind)
    label = DOG if kind == "classification" else CAT  # of the detection
    assert found.counts[number, label] == 1
    if before is None:  # precision 1 at the first object, then 2 of 3
        before = pytest.approx((51 + 50 * 2 / 3) / 101)
    assert found.ap_50()[CAT] == before
    assert found.ap_50(kind)[CAT] == pytest.approx(after)
    assert found.class_costs[number, CAT] == pytest.approx(after - found.ap_50()[CAT])
    others = [k for k in ERRORS if k != kind and found.counts[ERRORS.index(k), CAT]]
    assert others == []


def test_tide__the_first_type_that_applies_is_taken():
    twin = (0, 0, 10, 11)
    rows = rows_of(
        object_of(CAT),  # 0
        object_of(DOG, box=twin),
        detection(CAT, score=0.9),  # 2: finds the cat
        detection(CAT, score=0.8),  # the cat is found, and the dog would be found by its class: classification
        detection(CAT, box=SHIFTED, score=0.7),  # localisation, although it overlaps the dog too
    )
    found = tide(rows, 2)
    types = ["classification", "localisation"]
    assert found.error.tolist() == [CORRECT, 0, CORRECT, *(ERRORS.index(name) for name in types)]
    assert found.partner.tolist() == [2, 3, 0, 1, 0]
    assert found.counts[ERRORS.index("missed")].sum() == 0  # the classification error hides the dog
    assert found.ap_50("classification").tolist() == pytest.approx([1, 1])


def test_tide__of_errors_of_one_object_the_best_is_kept():
    rows = rows_of(object_of(), detection(box=SHIFTED, score=0.9), detection(DOG, score=0.8))
    found = tide(rows, 2)
    assert found.error.tolist() == [ERRORS.index("localisation"), ERRORS.index("localisation"), 0]
    assert found.partner[0] == 1
    assert found.ap_50("localisation")[CAT] == 1
    assert found.ap_50("classification")[CAT] == 0  # the detection of lower score is removed


def test_tide__false_positives_and_false_negatives():
    rows = rows_of(object_of(), detection(box=FAR), *found_cat(1), *found_cat(2, 0.4))
    found = tide(rows, 1)
    assert found.ap_50("false positives")[CAT] == pytest.approx(67 / 101)  # precision 1 at recalls up to 2/3
    assert found.ap_50("false negatives")[CAT] == pytest.approx(2 / 3)  # two objects at precisions 1/2 and 2/3
    assert found.costs["false positives"] == pytest.approx(67 / 101 - 67 / 101 * 2 / 3)


def test_tide__a_class_that_is_never_found():
    nothing = tide(rows_of(object_of()), 1)
    assert (nothing.ap_50()[0], nothing.ap_50("missed")[0], nothing.costs["missed"]) == (0, 1, 1)
    false = tide(rows_of(object_of(), detection(box=FAR)), 1)
    assert (false.ap_50("missed")[0], false.ap_50("missed", "background")[0]) == (0, 1)


def test_tide__ignored_detections_are_no_errors():
    crowd = rows_of((0, CROWD, (0, 0, 40, 40), CAT, np.nan), detection(), *found_cat(1))
    found = tide(crowd, 1)
    assert found.error.tolist() == [UNCOUNTED, UNCOUNTED, CORRECT, CORRECT]
    assert found.ap_50()[CAT] == pytest.approx(1)


def test_tide__lvis_ignores_classes_that_are_not_annotated():
    rows = rows_of(
        (0, ABSENT, (0, 0, 0, 0), CAT, 0),
        detection(CAT, box=FAR),  # a false positive: no cat is in the image
        detection(DOG, box=FAR),  # unknown
        *found_cat(1),
        (1, NOT_EXHAUSTIVE, (0, 0, 0, 0), CAT, 0),
        detection(CAT, box=FAR, image=1),  # there may be a cat
    )
    found = tide(rows, 2, "lvis", 300)
    background = ERRORS.index("background")
    assert found.error.tolist() == [UNCOUNTED, background, UNCOUNTED, CORRECT, CORRECT, UNCOUNTED, UNCOUNTED]
    limited = tide(rows, 2, "lvis", 1)  # the best detection of the second image is the ignored one
    assert limited.error[3] == ERRORS.index("missed")


def test_tide__ap_is_that_of_the_evaluation_with_lvis_too():
    rows = random_rows(3)
    expected = evaluate(rows, dict(enumerate("abcde")), "lvis", limits=(7,)).ap_50
    assert tide(rows, 5, "lvis", 7).ap_50() == pytest.approx(expected)


def test_tide__only_the_best_detections_count():
    rows = rows_of(object_of(), detection(score=0.5), *(detection(box=FAR, score=0.9) for _ in range(3)))
    assert tide(rows, 1, max_detections=3).ap_50()[CAT] == 0
    assert tide(rows, 1, max_detections=3).error.tolist()[1] == UNCOUNTED
    assert tide(rows, 1, max_detections=4).ap_50()[CAT] == pytest.approx(0.25)


def test_tide__without_rows_or_objects():
    empty = DetectionTable(np.arange(3), *(np.zeros((0, 4) if n == 1 else 0, np.int32) for n in range(5)))
    found = tide(empty, 2)
    assert found.costs == dict.fromkeys((*ERRORS, *SPECIAL), 0.0)
    assert (found.ap_50().tolist(), found.mean_ap_50) == ([-1, -1], -1)
    false = tide(rows_of(detection()), 1)
    assert false.counts[ERRORS.index("background")].tolist() == [1]
    assert np.isnan(false.class_costs).all()


def test_ap_50__an_unknown_name_is_refused():
    with pytest.raises(UsageError, match=r"'localization'.*Did you mean 'localisation'"):
        tide(rows_of(object_of()), 1).ap_50("localization")


def random_rows(seed, images=40, num_classes=5, crowds=0.0):
    """Objects, detections near them with errors of all kinds, and detections elsewhere."""
    rng, rows = np.random.default_rng(seed), []
    for image in range(images):
        number = rng.integers(0, 8)
        corners, sizes = rng.uniform(0, 300, (number, 2)), rng.uniform(15, 120, (number, 2))
        boxes, labels = np.concatenate([corners, corners + sizes], 1), rng.integers(0, num_classes, number)
        kinds = np.where(rng.random(number) < crowds, CROWD, OBJECT)
        rows += [(image, kinds[k], boxes[k], labels[k], np.nan) for k in range(number)]
        for k in range(number):
            for _ in range(rng.integers(0, 4)):
                box = boxes[k] + rng.normal(0, 1, 4) * rng.choice([0.05, 0.15, 0.4]) * np.tile(sizes[k], 2)
                box = np.concatenate([np.minimum(box[:2], box[2:]), np.maximum(box[:2], box[2:])])
                label = labels[k] if rng.random() < 0.7 else rng.integers(0, num_classes)
                rows.append((image, DETECTION, box, label, rng.random()))
        for _ in range(rng.integers(0, 6)):
            corner = rng.uniform(0, 300, 2)
            box = np.concatenate([corner, corner + rng.uniform(15, 120, 2)])
            rows.append((image, DETECTION, box, rng.integers(0, num_classes), rng.random() * 0.8))
    return rows_of(*rows)


@pytest.mark.parametrize("crowds", [0.0, 0.2])
@pytest.mark.parametrize("seed", range(4))
def test_tide__invariants(seed, crowds):
    rows = random_rows(seed, crowds=crowds)
    found = tide(rows, 5)
    base = found.ap_50()
    assert base == pytest.approx(evaluate(rows, dict(enumerate("abcde"))).ap_50)
    assert found.ap_50(*ERRORS) == pytest.approx(np.ones(5))  # fixing everything is perfect
    assert found.ap_50(*SPECIAL) == pytest.approx(np.ones(5))
    for name in ("both", "duplicate", "background", "false positives"):  # removing false positives cannot hurt
        assert (found.ap_50(name) >= base).all()
    assert (found.ap_50("false positives") >= found.ap_50("both", "duplicate", "background") - 1e-12).all()
    assert all(0 <= cost <= 1 for cost in found.costs.values())
    # every object is found, hidden by an error, or missed; every detection is right, wrong or ignored
    is_object, is_detection = rows.kinds == OBJECT, rows.kinds == DETECTION
    assert set(np.unique(found.error[is_object])) <= {CORRECT, 0, 1, ERRORS.index("missed")}
    assert set(np.unique(found.error[is_detection])) <= {CORRECT, UNCOUNTED, *range(5)}
    wrong = np.bincount(found.error[is_detection & (found.error >= 0)], minlength=6)
    wrong[5] = (found.error[is_object] == 5).sum()
    assert found.counts.sum(1).tolist() == wrong.tolist()
    assert found.num_objects.sum() == is_object.sum()
    matched = (found.partner >= 0) & (found.error == CORRECT)
    assert (found.partner[found.partner[matched]] == np.flatnonzero(matched)).all()


def test_tide__parts_of_the_images_give_the_same(monkeypatch):
    rows = random_rows(1, crowds=0.1)
    whole = tide(rows, 5)
    monkeypatch.setattr(module, "_ROWS", 10)
    parts = tide(rows, 5)
    for name in ("error", "partner", "num_objects", "counts"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name))
    assert np.array_equal(whole.class_costs, parts.class_costs)


@pytest.mark.parametrize(
    ("seed", "counts", "costs"),
    [
        # computed by tidecv 1.0.1 in percent; its recalls are i / 100, COCO's differ in the last bit
        (4, [39, 58, 35, 29, 89, 34], [10.2652, 10.8560, 2.7839, 0.8597, 4.4306, 8.3415, 29.3443, 20.8537]),
        (7, [34, 75, 38, 38, 69, 49], [5.3450, 13.8318, 3.9329, 0.8507, 1.9130, 10.1561, 25.0762, 25.9453]),
    ],
)
def test_tide__values_of_the_authors_code(seed, counts, costs):
    found = tide(random_rows(seed), 5)
    assert found.counts.sum(1).tolist() == counts
    assert [100 * cost for cost in found.costs.values()] == pytest.approx(costs, abs=1e-4)
