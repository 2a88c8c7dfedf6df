"""Fixtures of the tests of data."""

import pytest

from tests.builders.coco_files import write_noise


@pytest.fixture
def folder(tmp_path):
    """A folder with three splits."""
    write_noise(tmp_path, 8)
    write_noise(tmp_path, 4, "val", first_id=21)
    write_noise(tmp_path, 3, "test", first_id=31)
    return tmp_path
