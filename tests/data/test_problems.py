import warnings
from pathlib import Path

import pytest

from lit_dense.data import DataError
from lit_dense.data.problems import KEPT, SHOWN, Problems


def test_problems__none_is_no_message():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Problems().settle(strict=True)


def test_problems__repairs_of_all_files_make_one_warning_that_counts_them():
    problems = Problems()
    problems.add(Path("a.json"), "boxes of zero size", ["annotation 1", "annotation 2"], repair="dropped")
    problems.add(Path("b.json"), "boxes partly outside", ["annotation 3"], repair="clipped")
    with pytest.warns(UserWarning, match="The data was repaired") as caught:
        problems.settle(strict=False)
    assert len(caught) == 1
    message = str(caught[0].message)
    for part in ("a.json", "zero size: 2 (dropped)", "annotation 2", "b.json", "partly outside: 1 (clipped)"):
        assert part in message


def test_problems__strict_makes_repairs_errors():
    problems = Problems()
    problems.add(Path("a.json"), "boxes of zero size", ["annotation 1"], repair="dropped")
    with pytest.raises(DataError, match="! boxes of zero size: 1\n") as error:
        problems.settle(strict=True)
    assert "dropped" not in str(error.value)


def test_problems__an_error_lists_the_repairs_too():
    problems = Problems()
    problems.add(Path("a.json"), "no such file")
    problems.add(Path("b.json"), "boxes of zero size", ["annotation 1"], repair="dropped")
    with pytest.raises(DataError, match=r"! no such file\n[^!]*- boxes of zero size: 1 \(dropped\)"):
        problems.settle(strict=False)


def test_problems__only_the_first_details_are_made_and_the_rest_is_counted():
    drawn = []

    def details():
        for number in range(1000):
            drawn.append(number)
            yield f"annotation {number}"

    problems = Problems()
    problems.add("a.json", "boxes of zero size", details(), count=1000, repair="dropped")
    assert len(drawn) == SHOWN
    assert f"and {1000 - SHOWN} more" in problems.report(strict=False)
    assert "1,000" in problems.report(strict=False)


def test_problems__what_two_readers_find_in_one_file_is_reported_once():
    first, second = Problems(), Problems()
    for problems in (first, second):
        problems.add("a.json", "no such file")
    first.extend(second.found)
    assert len(first.found) == 1


def test_problems__one_error_without_examples_is_one_line():
    problems = Problems()
    problems.add(Path("a.json"), "no boxes, so there is nothing to train on")
    with pytest.raises(DataError, match=r"^The data cannot be used: a\.json: no boxes, so [^\n]*train on\.$"):
        problems.settle(strict=False)


def test_problems__errors_with_examples_are_in_the_first_line():
    problems = Problems()
    problems.add(Path("a.json"), "boxes between 0 and 1", ["annotation 1"], cure="multiply them")
    with pytest.raises(
        DataError, match=r"^The data cannot be used: boxes between 0 and 1 \(! [^\n]*\n(.*\n)*      cure: multiply"
    ):
        problems.settle(strict=False)


def test_problems__what_is_kept_is_no_repair_but_an_error_where_strict():
    problems = Problems()
    problems.add("a.json", "images with several entries", ["a.png: images 1, 2"], repair=KEPT)
    with pytest.warns(UserWarning, match="The data has problems"):
        problems.settle(strict=False)
    with pytest.raises(DataError, match="! images with several entries"):
        problems.settle(strict=True)


def test_problems__hints_are_none():
    first, second = Problems(), Problems()
    for problems in (first, second):
        problems.add("a.json", "classes without a box", ["category 1"], hint=True)
    first.extend([*second.found, *second.hints])
    assert not first.found
    assert first.report_hints() == "a.json\n  - classes without a box: 1\n      category 1"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first.settle(strict=True)
