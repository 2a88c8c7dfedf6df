"""The arguments of a criterion, which several functions take: the same names, types and first clauses everywhere."""

import inspect
import re

import pytest

from lit_dense import Criterion, LitDetector, SwapLoss, patch
from lit_dense.criterion import CriterionArgs

NAMES = list(CriterionArgs.__annotations__)
TAKERS = [patch, SwapLoss, LitDetector]


def _documented(taker):
    """The text of each argument in a docstring."""
    text = inspect.getdoc(taker).split("Args:\n")[1]
    found = re.findall(r"^    (\w+): ((?:.|\n        )*)", text, re.MULTILINE)
    return {name: re.sub(r"\s+", " ", body) for name, body in found}


def _first_clause(text):
    return re.split(r"[;.](?:\s|$)", text)[0]


@pytest.mark.parametrize("taker", TAKERS, ids=lambda taker: taker.__name__)
def test_arguments_of_a_criterion__have_one_type_and_one_text(taker):
    own, stock = inspect.signature(taker).parameters, inspect.signature(Criterion).parameters
    texts, expected = _documented(taker), _documented(Criterion)
    for name in NAMES:
        assert own[name].annotation in (stock[name].annotation, CriterionArgs.__annotations__[name]), name
        assert _first_clause(texts[name]) == _first_clause(expected[name])


def test_criterion_args__are_the_arguments_of_a_criterion():
    names = list(inspect.signature(Criterion).parameters)
    names.remove("class_counts")
    assert names == NAMES
