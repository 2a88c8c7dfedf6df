import warnings
from pathlib import Path

import pytest

from lit_dense.data import DataError
from lit_dense.data.problems import SHOWN, Problems


def test_no_problem_is_no_message():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Problems().settle(strict=True)


def test_repairs_of_all_files_make_one_warning_that_counts_them():
    problems = Problems()
    problems.add(Path("a.json"), "boxes of zero size", ["annotation 1", "annotation 2"], repair="dropped")
    problems.add(Path("b.json"), "boxes partly outside", ["annotation 3"], repair="clipped")
    with pytest.warns(UserWarning, match="The data was repaired") as caught:
        problems.settle(strict=False)
    assert len(caught) == 1
    message = str(caught[0].message)
    for part in ("a.json", "zero size: 2 (dropped)", "annotation 2", "b.json", "partly outside: 1 (clipped)"):
        assert part in message


def test_strict_makes_repairs_errors():
    problems = Problems()
    problems.add(Path("a.json"), "boxes of zero size", ["annotation 1"], repair="dropped")
    with pytest.raises(DataError, match="! boxes of zero size: 1\n") as error:
        problems.settle(strict=True)
    assert "dropped" not in str(error.value)


def test_an_error_tells_the_repairs_too():
    problems = Problems()
    problems.add(Path("a.json"), "no such file")
    problems.add(Path("b.json"), "boxes of zero size", ["annotation 1"], repair="dropped")
    with pytest.raises(DataError, match=r"! no such file\n[^!]*- boxes of zero size: 1 \(dropped\)"):
        problems.settle(strict=False)


def test_only_the_first_details_are_drawn_and_the_rest_is_counted():
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


def test_what_two_readers_find_in_one_file_is_told_once():
    first, second = Problems(), Problems()
    for problems in (first, second):
        problems.add("a.json", "no such file")
    first.extend(second.found)
    assert len(first.found) == 1
