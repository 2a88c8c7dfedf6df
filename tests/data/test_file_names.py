import unicodedata

import pytest

from lit_dense.data.file_names import cure_of_leaving, cure_of_missing, ignores_case, inside, relocated, similar
from tests.builders.coco_files import write_image


@pytest.fixture
def folder(tmp_path):
    """A folder ``set/images`` with a.png, sub/b.png and images/twice.png."""
    folder = tmp_path / "set" / "images"
    for name in ("a.png", "sub/b.png", "images/twice.png"):
        write_image(folder / name)
    return folder


@pytest.mark.parametrize("name", ["a.png", "sub/../a.png", "..a.png", "a..b.png", "C:/a.png", "http://host/a.png", "."])
def test_inside__relative_names_stay_as_they_are(folder, name):
    assert inside(name, folder) == name


@pytest.mark.parametrize("name", ["../a.png", "sub/../../a.png", "/etc/passwd", "/"])
def test_inside__names_that_leave_the_folder(folder, name):
    assert inside(name, folder) is None
    assert inside(f"{folder}/../secret.png", folder) is None
    assert inside(f"{folder}2/a.png", folder) is None
    assert inside(str(folder), folder) is None


def test_inside__absolute_names_inside_the_folder(folder, tmp_path, monkeypatch):
    assert inside(f"{folder}/sub/b.png", folder) == "sub/b.png"
    assert inside(f"{folder}/../images/./a.png", folder) == inside("../images/a.png", folder) == "a.png"
    assert inside(f"{folder}/a.png", type(folder)("/")) == f"{folder}/a.png"[1:]
    monkeypatch.chdir(folder.parent)
    assert inside(f"{folder}/a.png", type(folder)("images")) == "a.png"
    (tmp_path / "link").symlink_to(folder)
    assert inside(f"{folder}/a.png", tmp_path / "link") == "a.png"
    assert inside(f"{tmp_path}/link/a.png", folder) == "a.png"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("sub\\b.png", "sub/b.png"),
        ("images/a.png", "a.png"),
        ("images\\a.png", "a.png"),
        ("set/images/sub/b.png", "sub/b.png"),
        ("other/a.png", None),
        ("images/none.png", None),
        ("..\\images\\a.png", None),
        ("other\\a.png", None),
        ("C:\\set\\images\\a.png", None),
        ("a.png\0", None),
    ],
)
def test_relocated__missing_files_are_found_where_only_the_spelling_differs(folder, name, found):
    assert relocated(name, folder) == found


def test_relocated__a_name_that_may_mean_two_files_is_none(folder):
    write_image(folder / "twice.png")
    write_image(folder / "set" / "images" / "twice.png")
    assert relocated("set/images/images/twice.png", folder) == "images/twice.png"
    assert relocated("images\\twice.png", folder) is None


def test_similar__the_file_that_is_most_like_a_missing_one(folder):
    write_image(folder / unicodedata.normalize("NFD", "café 1.png"))
    for name in ("A.PNG", "a.jpg", "sub/a.png", "C:\\pics\\a.png", "http://host/a.png", "/elsewhere/a.png", "../a.png"):
        assert similar(name, folder) == f"; there is {folder}/a.png"
    assert similar("sub/B.png", folder) == f"; there is {folder}/sub/b.png"
    assert similar(unicodedata.normalize("NFC", "café%201.png"), folder).startswith(f"; there is {folder}/cafe")
    assert similar("b.png", folder) == similar("", folder) == ""


def test_similar__a_link_to_a_missing_file_is_named_and_never_proposed(folder):
    (folder / "c.png").symlink_to("/elsewhere/c.png")
    assert similar("c.png", folder) == "; it is a link to /elsewhere/c.png, which does not exist"
    assert similar("C.png", folder) == ""
    (folder.parent / "d.png").symlink_to("/elsewhere/d.png")
    assert similar("../d.png", folder) == ""


def test_cures__of_missing_and_leaving_names(folder):
    assert str(folder) in cure_of_missing(["a.png"], folder)
    assert "download" in cure_of_missing(["a.png", "https://host/pics/b.png"], folder)
    assert "write c.png" in cure_of_missing(["D:\\data\\c.png"], folder)
    assert "give /data/x as the image folder" in cure_of_leaving(
        ["../a.png", "/data/x/1/a.png", "/data/x/b.png"], folder
    )
    assert "give" not in cure_of_leaving(["../a.png"], folder)


def test_ignores_case__asks_the_file_system(tmp_path, monkeypatch):
    (tmp_path / "name").touch()
    assert ignores_case(tmp_path) == (tmp_path / "NAME").exists()
    assert len(list(tmp_path.iterdir())) == 1
    for answer in (True, False):
        monkeypatch.setattr(type(tmp_path), "exists", lambda path, answer=answer: answer)
        assert ignores_case(tmp_path) == answer
