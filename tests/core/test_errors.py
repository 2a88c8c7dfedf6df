import re

import pytest
from torch._utils import ExceptionWrapper

from lit_dense.core.errors import UsageError, check_choice, check_range, missing_package
from lit_dense.data import DataError


def test_check_choice__a_word_that_is_accepted_comes_back():
    assert check_choice("ghm", "update", "paper", ("corrected", "paper")) == "paper"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("papr", r"^ghm: update must be one of corrected, paper, not 'papr'\. Did you mean 'paper'\?$"),
        ("xyz", r"^ghm: update must be one of corrected, paper, not 'xyz'\.$"),
        (None, r"not None\.$"),
    ],
)
def test_check_choice__a_word_that_is_not_accepted_is_named_with_the_nearest(value, message):
    with pytest.raises(UsageError, match=message):
        check_choice("ghm", "update", value, ("corrected", "paper"))


def test_check_range__infinity_is_accepted_only_where_the_limit_is_infinite():
    inf = float("inf")
    assert check_range("ohem", "ratio", inf, 0, inf) == inf
    with pytest.raises(UsageError, match=r"^bce: pos_weight must be finite and at least 0, not inf\.$"):
        check_range("bce", "pos_weight", inf, 0)
    with pytest.raises(UsageError, match=r"^focal_star: beta must be finite, not -inf\.$"):
        check_range("focal_star", "beta", -inf, -inf)
    with pytest.raises(UsageError, match=r"^swn: p must be in \[0, 1\], not inf\.$"):
        check_range("swn", "p", inf, 0, 1)


class OwnError(UsageError):
    pass


def from_worker(raised):
    """What torch makes of an error in a worker of a data loader."""
    try:
        try:
            raise OSError("image file is truncated")
        except OSError as cause:
            raise raised from cause
    except type(raised):
        wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(type(raised)) as error:
        wrapped.reraise()
    return str(error.value)


@pytest.mark.parametrize("kind", [UsageError, OwnError, DataError])
@pytest.mark.parametrize(
    "message", ["a.jpg: it is damaged.", "two lines:\n  the second: one", "ends with UsageError: x"]
)
def test_usage_error__keeps_its_own_message_across_processes(kind, message):
    assert from_worker(kind(message)) == message


def test_usage_error__of_the_main_script_keeps_its_message_too(monkeypatch):
    monkeypatch.setattr(OwnError, "__module__", "__main__")
    assert from_worker(OwnError("a.jpg")) == "a.jpg"


def test_usage_error__leaves_other_messages_alone():
    for message in (
        "Caught a fish in the sea.\nOriginal and best",
        "",
        "Caught UsageError in x.\nOriginal Traceback (most",
    ):
        assert str(UsageError(message)) == message


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("No module", name="hotcoco"), 'hotcoco is not .*: pip install "lit-dense" brings it'),
        (ModuleNotFoundError("No module", name="yaml"), 'pyyaml is not .*: pip install "lit-dense" brings it'),
        (ModuleNotFoundError("No module", name="timm"), r'timm is not .*: pip install "lit-dense\[timm\]" brings it'),
        (ModuleNotFoundError("No module", name="ray"), r'ray is not .*: pip install "lit-dense\[ray\]" brings it'),
        # what LightningCLI raises
        (ModuleNotFoundError("Module not found: 'jsonargparse'. HINT: `pip install -U x`"), "jsonargparse is not inst"),
    ],
)
def test_missing_package__line_names_what_installs_it(error, message):
    assert re.match(message, missing_package(error))


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'mylocal'", name="mylocal"),
        ModuleNotFoundError("No module named 'torchvision.new'", name="torchvision.new"),  # another version of it
        ImportError("cannot import name 'new' from 'torch'", name="torch"),
    ],
)
def test_missing_package__is_none_for_anything_else(error):
    assert missing_package(error) is None
