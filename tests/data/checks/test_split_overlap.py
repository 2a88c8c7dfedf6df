from pathlib import Path

import numpy as np
import pytest

from lit_dense.data import CocoData
from lit_dense.data.checks.split_overlap import check_overlap, picture_groups
from lit_dense.data.problems import KEPT
from tests.builders.problems import problems_of, whats


def split(path, *names, folder="images", first_id=1):
    sizes = np.full((len(names), 2), 30)
    data = CocoData.without_boxes(list(names), sizes)
    ids = np.arange(first_id, first_id + len(names))
    return CocoData(**{**vars(data), "path": Path(path), "folder": Path(folder), "image_ids": ids})


def told(splits, new=None):
    return problems_of(check_overlap, splits, splits if new is None else new)


def test_check_overlap__one_image_in_two_splits(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    train = split("train.json", "a.png", "b.png", "c.png", folder=tmp_path)
    val = split("val.json", "d.png", "./b.png", folder=tmp_path / "link", first_id=7)
    (problem,) = told({"train": train, "val": val}).found
    assert (problem.what, problem.count) == ("images of val that are in train too", 1)
    assert (problem.path, problem.repair) == (Path("val.json"), KEPT)
    assert problem.examples == ("image 8 (./b.png) is image 2 (b.png) of train.json",)
    assert "keep each image in one split" in problem.cure


def test_check_overlap__the_same_names_in_other_folders_are_other_images():
    assert not told({"train": split("a.json", "1.png"), "val": split("b.json", "1.png", folder="val")}).found


def test_check_overlap__one_split_has_the_folder_around_that_of_the_other():
    whole = split("a.json", "train/1.png", "val/1.png", folder="images")
    inner = split("b.json", "1.png", "2.png", folder="images/val")
    (problem,) = told({"train": whole, "val": inner}).found
    assert problem.examples == ("image 1 (1.png) is image 2 (val/1.png) of a.json",)
    (problem,) = told({"train": inner, "val": whole}).found
    assert problem.examples == ("image 2 (val/1.png) is image 1 (1.png) of b.json",)
    assert not told({"train": whole, "val": split("b.json", "1.png", folder="images_val")}).found


def test_check_overlap__an_evaluation_set_that_is_the_training_set():
    data = split("train.json", "a.png", "b.png")
    (problem,) = told({"train": data, "val": data}).found
    assert (problem.what, problem.count) == ("all images of val that are in train too", 2)


def test_check_overlap__testing_on_the_validation_file_is_a_hint():
    data = split("val.json", "a.png")
    problems = told({"val": data, "test": data})
    assert not problems.found
    assert problems.hints[0].what == "all images of test that are in val too"


def test_check_overlap__only_pairs_with_a_new_split_are_reported():
    data = split("a.json", "a.png")
    splits = {"train": data, "val": data, "test": split("b.json", "b.png", "a.png")}
    assert whats(told(splits, ["test"])) == [
        "images of test that are in train too",
        "images of test that are in val too",
    ]
    assert len(told(splits).found) == 3


def test_check_overlap__copies_of_one_source_by_roboflows_names():
    train = split("a.json", "x_jpg.rf.1.jpg", "x_jpg.rf.2.jpg", "y_jpg.rf.3.jpg", folder="train")
    val = split("b.json", "z_jpg.rf.4.jpg", "x_jpg.rf.5.jpg", folder="valid")
    (problem,) = told({"train": train, "val": val}).found
    assert problem.what.startswith("images of val that are in train too as other copies (the name before .rf.")
    assert problem.examples == ("image 2 (x_jpg.rf.5.jpg) is image 1 (x_jpg.rf.1.jpg) of a.json",)


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["a.png", "b.png", "./a.png"], [0, 1, 0]),
        (["a_jpg.rf.1.jpg", "b_jpg.rf.1.jpg", "sub/a_jpg.rf.2.jpg"], [0, 1, 0]),
        (["x/a.png", "y/a.png"], [0, 1]),
        ([], []),
    ],
)
def test_picture_groups__worked_values(names, groups):
    assert picture_groups(names).tolist() == groups
