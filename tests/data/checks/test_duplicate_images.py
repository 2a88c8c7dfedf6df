import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_dense.data import CocoData
from lit_dense.data.checks import duplicate_images
from lit_dense.data.checks.duplicate_images import check_contents
from tests.builders.coco_files import write_image
from tests.builders.problems import problems_of


def split(folder, name):
    names = sorted(file.name for file in (folder / name).iterdir())
    data = CocoData.without_boxes(names, np.full((len(names), 2), 30))
    return CocoData(**{**vars(data), "path": folder / f"{name}.json", "folder": folder / name})


@pytest.fixture
def folder(tmp_path):
    """Three pictures to train on and two others, all of equal size as files."""
    for number, name in enumerate(("train/a", "train/b", "train/c", "val/d", "val/e")):
        write_image(tmp_path / f"{name}.bmp", seed=number)
    return tmp_path


def told(folder):
    return problems_of(check_contents, {name: split(folder, name) for name in ("train", "val")})


def test_check_contents__different_images_of_one_file_size_are_none(folder):
    assert len({file.stat().st_size for file in folder.glob("*/*.bmp")}) == 1
    assert not told(folder).found


def test_check_contents__copies_in_one_split_and_in_two(folder):
    shutil.copy(folder / "train/b.bmp", folder / "train/z.bmp")
    shutil.copy(folder / "train/b.bmp", folder / "val/k.bmp")
    inside, across = told(folder).found
    assert inside.what == "images that are in train more than once under another name (the files are equal)"
    assert inside.examples == ("image 4 (z.bmp) is image 2 (b.bmp)",)
    assert across.what == "images of val that are in train too under another name (the files are equal)"
    assert across.examples == (f"image 3 (k.bmp) is image 2 (b.bmp) of {folder}/train.json",)


def test_check_contents__images_that_differ_in_one_place_are_not_equal(folder):
    pixels = np.zeros((200, 200, 3), np.uint8)
    for name, colour in (("x", 0), ("y", 9)):
        pixels[30, 30] = colour  # neither in the middle nor at the end
        Image.fromarray(pixels).save(folder / f"train/{name}.bmp")
    assert not told(folder).found


def test_check_contents__one_file_of_two_splits_is_left_to_the_check_of_names(folder):
    shutil.rmtree(folder / "val")
    (folder / "val").symlink_to(folder / "train")
    assert not told(folder).found


def test_check_contents__reads_only_files_of_equal_size_and_large_ones_within_a_limit(folder, monkeypatch):
    write_image(folder / "train/other.bmp", width=50)
    shutil.copy(folder / "train/a.bmp", folder / "val/z.bmp")
    read = []
    real = duplicate_images._digest
    monkeypatch.setattr(
        duplicate_images, "_digest", lambda path, blocks: read.append(Path(path).name) or real(path, blocks)
    )
    assert len(told(folder).found) == 1
    assert sorted(read) == ["a.bmp", "a.bmp", "b.bmp", "c.bmp", "d.bmp", "e.bmp", "z.bmp", "z.bmp"]
    monkeypatch.setattr(duplicate_images, "LIMIT", 100)
    problems = told(folder)
    assert not problems.found
    assert problems.hints[0].what == "files that may be equal, too large to be compared as a whole"
    assert problems.hints[0].count == 2


def test_check_contents__missing_files_are_in_no_group(folder):
    splits = {"train": split(folder, "train")}
    shutil.rmtree(folder / "train")
    assert not problems_of(check_contents, splits).found
