import pytest

from tests.builders.box_entries import check_entries
from tests.builders.coco_files import CATEGORIES

BOXES = [(5, 5, 10, 10)] * 3


def checked(*ids):
    """Problems of a box of each category id; the listed ids are 3 and 7."""
    return check_entries(BOXES[: len(ids)], categories=ids)


@pytest.mark.parametrize(("ids", "word", "cure"), [((2, 6), "less", "add 1 to"), ((4, 8), "more", "subtract 1 from")])
def test_drop_unknown_categories__ids_that_are_all_shifted_by_one_are_an_error(ids, word, cure):
    (error,) = checked(*ids)[1].errors(strict=False)
    assert error.what == f"category ids that are one {word} than those in the list of categories"
    assert error.count == 2
    assert f"count categories from {ids[0]}, the list from 3: 3 (cat), 7 (dog); {cure} category_id" in error.cure


@pytest.mark.parametrize("ids", [(2, 7), (2,), (3, 7, 8), (2, 6, 9)])
def test_drop_unknown_categories__other_unknown_ids_are_dropped_with_a_cure(ids):
    data, problems = checked(*ids)
    (problem,) = problems.found
    assert (problem.what, problem.repair) == ("annotations of unknown categories", "dropped")
    assert problem.count == len(set(ids) - {category["id"] for category in CATEGORIES})
    assert problem.cure == "list their categories, or correct category_id"
    assert len(data.boxes) == len(ids) - problem.count


def test_drop_unknown_categories__listed_ids_have_no_problem():
    assert not checked(3, 7, 7)[1].found
