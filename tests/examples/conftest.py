"""Packages under examples/, installed once."""

import functools

import pytest

from tests.builders.example_packages import install


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """``installed(name)`` is a copy of a package's source, and the environment in which it is installed."""
    return functools.cache(lambda name: install(name, tmp_path_factory.mktemp(name)))
