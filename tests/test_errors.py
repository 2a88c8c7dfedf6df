import pytest

from lit_dense.errors import UsageError, check_choice


def test_a_word_that_is_accepted_comes_back():
    assert check_choice("ghm", "update", "paper", ("corrected", "paper")) == "paper"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("papr", r"^ghm: update must be one of corrected, paper, not 'papr'\. Did you mean 'paper'\?$"),
        ("xyz", r"^ghm: update must be one of corrected, paper, not 'xyz'\.$"),
        (None, r"not None\.$"),
    ],
)
def test_a_word_that_is_not_accepted_is_named_with_the_nearest(value, message):
    with pytest.raises(UsageError, match=message):
        check_choice("ghm", "update", value, ("corrected", "paper"))
