import pytest

from tests import conftest


@pytest.mark.parametrize("name", ["gpu", "slow", "fast_paths", "shared_data"])
@pytest.mark.parametrize("marked", [False, True])
def test_marks__only_a_mark_skips_a_test_and_not_a_folder_of_that_name(name, marked, request, monkeypatch):
    class Item:
        keywords = {name: True}  # pytest lists marks here, and folders

        def __init__(self):
            self.added = []

        def get_closest_marker(self, wanted):
            return getattr(pytest.mark, name) if marked and wanted == name else None

        def add_marker(self, marker):
            self.added.append(marker)

    monkeypatch.setattr(conftest.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(conftest, "SHARED", conftest.SHARED / "missing")
    monkeypatch.setattr(request.config, "getoption", lambda option: option == "--no-fast-paths")
    item = Item()
    conftest.pytest_collection_modifyitems(request.config, [item])
    assert bool(item.added) == marked
