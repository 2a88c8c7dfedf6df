"""Fixtures of the tests of formulas."""

import functools

import pytest
import torch

from tests.builders.chunked_functions import forget_functions


@pytest.fixture
def traced(monkeypatch):
    """Compile to a graph that PyTorch runs operation by operation, which takes no compiler and little time."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    forget_functions(monkeypatch)
