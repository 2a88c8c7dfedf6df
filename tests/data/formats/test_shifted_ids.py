import pytest

from lit_dense.data.formats.shifted_ids import shift_of


@pytest.mark.parametrize(
    ("used", "listed", "shift"),
    [
        ({0, 1}, {1, 2}, -1),
        ({1, 2}, {0, 1}, 1),
        ({1, 2}, {1, 2}, 0),
        ({0}, {1, 2}, 0),
        ({2, 3}, {0, 1}, 0),
        (set(), {1}, 0),
        (set(), set(), 0),
    ],
)
def test_shift_of__only_an_exact_shift_counts(used, listed, shift):
    assert shift_of(used, listed) == shift
