"""Tables about errors, of few boxes."""

import re

import pytest

from lit_dense.cli.analysis import errors as sections
from lit_dense.cli.analysis.errors import DASH, MINUS, find_errors
from lit_dense.metrics.evaluation import evaluate
from lit_dense.metrics.tide import ERRORS, SPECIAL
from tests.metrics.test_tide import CAT, DOG, FAR, SHIFTED, detection, found_cat, object_of, random_rows, rows_of


def errors_of(rows, names=("cat", "dog")):
    return find_errors(rows, evaluate(rows, dict(enumerate(names))))


def column(table, header):
    index = list(table.headers).index(header)
    return {row[0]: row[index] for row in table.rows}


@pytest.fixture
def confused():
    """A cat that is detected as a dog and, hardly, as a cat; a cat that is found; a dog that is not found."""
    return errors_of(
        rows_of(object_of(), detection(DOG), detection(score=0.1), *found_cat(1), object_of(DOG, FAR, image=1))
    )


def test_summary__names_the_most_expensive_errors(confused):
    rows = rows_of(object_of(), *found_cat(1), *found_cat(2), detection(box=SHIFTED, score=0.9, image=2))
    said = sections.summary(errors_of(rows))
    assert re.fullmatch(
        r"AP 0\.\d{3} and AP50 0\.\d{3} on 3 images with 3 objects\. Fixing all \w+ \w+ \(0\.\d{3}\) would gain most "
        r"AP50, then \w+ \w+ \(0\.\d{3}\)\.",
        said,
    )
    assert "missed objects" in said
    assert "localisation errors" in said
    assert sections.summary(confused).endswith("Fixing one type of errors alone would gain nothing.")
    perfect = errors_of(rows_of(*found_cat(0)))
    assert sections.summary(perfect).endswith("No type of error costs AP50.")
    assert sections.summary(errors_of(rows_of(detection()))) == "The 1 images have no objects: there is no AP."


def test_costs_table__counts_errors_of_all_scores_and_of_the_shown_ones(confused):
    table = sections.costs_table(confused)
    assert [row[0] for row in table.rows] == [*ERRORS, *SPECIAL]
    shown, total = column(table, "errors from score 0.3"), column(table, "all errors")
    assert (shown["classification"], total["classification"]) == ("1", "1")
    assert (shown["missed"], total["missed"]) == ("1", "1")  # the first cat is hidden by the dog
    assert (shown["false negatives"], total["false negatives"]) == ("2", "1")
    assert (shown["false positives"], total["false positives"]) == ("1", "1")


def test_sizes_table__shares_of_found_objects(confused):
    table = sections.sizes_table(confused)
    assert column(table, "objects") == {"small": "3", "medium": "0", "large": "0"}
    assert column(table, "found") == {"small": "33 %", "medium": DASH, "large": DASH}
    assert column(table, "classification")["small"] == "1"


def test_classes_table__the_lowest_ap_first_and_its_largest_cost_marked():
    table = sections.classes_table(
        errors_of(rows_of(object_of(), detection(box=SHIFTED), *found_cat(1), object_of(DOG)))
    )
    assert [row[0] for row in table.rows] == ["dog", "cat"]
    marked = {(table.rows[row][0], table.headers[cell]) for row, cell in table.marked}
    assert marked == {("dog", "missed"), ("cat", "localisation")}


def test_classes_table__of_many_classes_says_how_many_are_left_out():
    rows = random_rows(0, images=200, num_classes=100)
    found = errors_of(rows, [f"class {k}" for k in range(100)])
    for table in (sections.classes_table(found), sections.largest_table({"a": found, "b": found})):
        assert len(table.rows) == sections.MOST_CLASSES
        assert table.notes[-1] == "The 40 classes of lowest AP50 are shown, and 60 more are left out."
    table = sections.confusions_table({"a": found})
    assert len(table.rows) == sections.MOST_CONFUSIONS
    assert table.notes[-1].endswith("more are left out.")


def test_confusions_table__most_frequent_pairs(confused):
    table = sections.confusions_table({"": confused})
    assert table.rows == [["cat", "dog", "1 (50 %)"]]
    assert list(table.headers) == ["object", "detected as", "number"]
    two = sections.confusions_table({"a": confused, "b": errors_of(rows_of(*found_cat(0)))})
    assert (list(two.headers[2:]), two.rows[0][2:]) == (["a", "b"], ["1 (50 %)", "0 (0 %)"])
    assert sections.confusions_table({"b": errors_of(rows_of(*found_cat(0)))}) is None


def test_tables_of_several_runs__find_classes_by_name(confused):
    rows = confused.rows
    swapped = type(rows)(rows.image_ids, rows.images, rows.boxes, 1 - rows.labels, rows.kinds, rows.scores)
    both = {"a": confused, "b": errors_of(swapped, ("dog", "cat"))}
    for table in (sections.largest_table(both), sections.confusions_table(both)):
        assert all(row[-1] == row[-2] for row in table.rows)
    fewer = {"a": confused, "b": errors_of(rows_of(*found_cat(0)), ("cat",))}
    assert column(sections.largest_table(fewer), "b") == {"cat": DASH, "dog": DASH}
    for runs in (fewer, dict(reversed(fewer.items()))):
        table = sections.confusions_table(runs)
        assert {row[0]: dict(zip(runs, row[2:], strict=True)) for row in table.rows} == {
            "cat": {"a": "1 (50 %)", "b": "0 (0 %)"}
        }


def test_runs_table__has_the_costs_of_each_run(confused):
    table = sections.runs_table({"a": confused})
    assert table.rows[0][:2] == ["a", f"{confused.tide.mean_ap_50:.3f}"]
    assert table.rows[0][2:] == [f"{cost:.3f}" for cost in confused.tide.costs.values()]


def test_find_errors__of_the_protocol_and_limit():
    rows = rows_of(object_of(), detection(score=0.5), *(detection(box=FAR, score=0.9) for _ in range(3)))
    assert find_errors(rows, evaluate(rows, {0: "cat"}), max_detections=3).tide.ap_50()[CAT] == 0
    assert find_errors(rows, evaluate(rows, {0: "cat"})).tide.ap_50()[CAT] == pytest.approx(0.25)


def test_short_and_signed():
    assert sections.short("x" * 60) == "x" * 39 + "…" + "x" * 8
    assert [sections.signed(v) for v in (-0.0001, -0.01, 0.5)] == ["0.000", f"{MINUS}0.010", "0.500"]
