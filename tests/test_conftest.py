from types import SimpleNamespace

import pytest

from tests import conftest


class Item:
    def __init__(self, keyword, marked):
        self.keywords = {keyword: True}  # pytest lists marks here, and folders
        self.marker = pytest.mark.skip if marked else None
        self.added = []

    def get_closest_marker(self, name):
        return self.marker if name in self.keywords else None

    def add_marker(self, marker):
        self.added.append(marker)


@pytest.mark.parametrize("name", ["gpu", "slow", "fast_paths", "shared_data"])
@pytest.mark.parametrize("marked", [False, True])
def test_marks__only_a_mark_skips_a_test_and_not_a_folder_of_that_name(name, marked, monkeypatch):
    monkeypatch.setattr(conftest.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(conftest, "SHARED", conftest.SHARED / "missing")
    item = Item(name, marked)
    config = SimpleNamespace(getoption=lambda option: option == "--no-fast-paths")
    conftest.pytest_collection_modifyitems(config, [item])
    assert bool(item.added) == marked
