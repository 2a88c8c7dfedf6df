import json

import numpy as np
import pytest
from PIL import Image

from lit_dense import LitRetinaNet
from lit_dense.cli.lightning_cli import CheckingTrainer
from lit_dense.core.errors import UsageError
from lit_dense.data import CocoDataModule, check
from lit_dense.data.check_report import MAX_ROWS, summarize
from lit_dense.data.checks.annotation_file import check_split
from lit_dense.data.formats.coco import read_coco
from lit_dense.data.problems import Problems
from tests.builders.coco_files import box_entry, image_entry, write_image, write_json, write_noise


@pytest.fixture
def folder(tmp_path):
    write_noise(tmp_path, 8)
    return tmp_path


def make(folder, **options):
    return CocoDataModule(folder, "train", "train.json", **options)


def spoil(folder, *annotations):
    content = json.loads((folder / "train.json").read_text())
    content["annotations"] += annotations
    (folder / "train.json").write_text(json.dumps(content))


def test_check__good_data(folder):
    report = check(make(folder))
    assert report.ok
    assert "train: 8 images, 9 boxes" in report.text
    assert "no problem was found" in report.text


def test_summarize__the_numbers(tmp_path):
    for number in (1, 2, 3):
        write_image(tmp_path / f"{number}.png", width=100 * number, height=120)
    annotations = [
        box_entry(1, 1, (0, 0, 10, 10), 3),
        box_entry(2, 1, (0, 0, 40, 40), 3),
        box_entry(3, 1, (0, 0, 99, 99), 7),
        box_entry(4, 3, (0, 0, 20, 20), 7, iscrowd=1),
    ]
    problems = Problems()
    path = write_json(tmp_path / "a.json", [image_entry(n, 100 * n, 120) for n in (1, 2, 3)], annotations)
    text = summarize("train", check_split(read_coco(path, problems), tmp_path, problems))
    assert "train: 3 images, 4 boxes" in text
    assert "100 / 200 / 300" in text
    assert "120 / 120 / 120" in text
    assert "without boxes    1 (33.3%)" in text
    assert "crowd boxes      1 (25.0%)" in text
    assert "small 2 (50.0%), medium 1 (25.0%), large 1 (25.0%)" in text
    rows = [line.split() for line in text.splitlines()[-2:]]
    assert rows == [["cat", "2", "66.7%", "1"], ["dog", "1", "33.3%", "1"]]


def test_check__the_range_of_weights_is_shown_where_a_key_is_given(folder):
    spoil(folder, box_entry(50, 1, hard=0.25), box_entry(51, 1, hard=7))
    assert "box weights      0.25 / 1 / 7  (smallest" in check(make(folder, weight_key="hard")).text
    assert "box weights" not in check(make(folder)).text
    write_json(folder / "train.json", [image_entry(1)], [])
    assert "train: 1 images, 0 boxes" in check(make(folder, weight_key="hard")).text


def test_check__repairs_are_listed_and_strict_makes_them_errors(folder):
    spoil(folder, box_entry(50, 1, (0, 0, 0, 5)))
    report = check(make(folder))
    assert report.ok
    assert "boxes of zero or negative size: 1 (dropped)" in report.text
    assert "kinds of problems that are repaired: 1" in report.text
    assert "train: 8 images, 9 boxes" in report.text
    report = check(make(folder, strict=True))
    assert not report.ok
    assert "kinds of errors: 1" in report.text


def test_check__errors_of_all_splits(folder):
    write_json(folder / "val.json", [image_entry(1), image_entry(1)])
    report = check(
        make(folder, val_annotations="val.json", test_annotations="gone.json", predict=[str(folder / "none")])
    )
    assert not report.ok
    for part in ("image ids used more than once", "gone.json\n  ! no such file", "paths without an image: 1"):
        assert part in report.text
    assert "train: 8 images" in report.text


def test_summarize__many_classes_leave_out_the_middle(tmp_path):
    write_image(tmp_path / "1.png")
    categories = [{"id": number, "name": f"class{number}"} for number in range(100)]
    annotations = [box_entry(number, 1, category_id=number % 100) for number in range(1, 150)]
    problems = Problems()
    path = write_json(tmp_path / "a.json", [image_entry(1)], annotations, categories)
    lines = summarize("train", check_split(read_coco(path, problems), tmp_path, problems)).splitlines()
    rows = [line for line in lines if "class" in line and "%" in line]
    assert len(rows) == MAX_ROWS
    assert f"  ... {100 - MAX_ROWS} more ..." in lines


def test_check__no_boxes_at_all(folder):
    write_json(folder / "train.json", [image_entry(1)], [])
    report = check(make(folder))
    assert not report.ok
    assert "train: 1 images, 0 boxes" in report.text
    assert "no boxes, so there is nothing to train on" in report.text


def test_check__images_to_predict_on(folder):
    report = check(CocoDataModule(predict=str(folder / "train")))
    assert report.ok
    assert "predict: 8 images" in report.text
    assert "class" not in report.text


def test_check__nothing_to_check():
    with pytest.raises(UsageError, match="nothing to check"):
        check(CocoDataModule())


@pytest.mark.shared_data
def test_check__real_data(bccd):
    report = check(CocoDataModule(bccd, "images", "annotations/train.json"))
    assert report.ok
    rows = dict(line.split()[:2] for line in report.text.splitlines() if line.startswith(("  RBC", "  WBC", "  Plate")))
    assert rows == {"RBC": "2,381", "WBC": "214", "Platelets": "209"}
    assert np.isclose(sum(int(count.replace(",", "")) for count in rows.values()), 2804)


def test_check__kept_problems_and_hints_are_listed_apart(folder):
    spoil(
        folder,
        box_entry(50, 1, (0, 0, 9, 9)),
        box_entry(51, 1, (0, 0, 9, 9)),
        box_entry(52, 1, (0, 0, 8, 9), iscrowd=True),
    )
    report = check(make(folder))
    assert report.ok
    assert (
        "The data can be used; kinds of problems that are left as they are: 1, things worth a look: 1." in report.text
    )
    assert "Worth a look:\n" in report.text
    assert not check(make(folder, strict=True)).ok


@pytest.mark.parametrize("option", ["train", "predict"])
def test_check__thin_images_are_an_error_of_the_models_size(folder, option):
    write_image(folder / "train" / "1.png", width=400, height=3)
    data = make(folder) if option == "train" else CocoDataModule(predict=str(folder / "train"))
    assert check(data).ok
    report = check(make(folder) if option == "train" else data, max_size=100)
    assert not report.ok
    assert "images so thin that scaling them to max_size=100 leaves less than a pixel: 1" in report.text
    assert "1.png): 400 x 3" in report.text


def test_checking_trainer__takes_the_models_size(folder, capsys):
    write_image(folder / "train" / "1.png", width=400, height=3)
    model = LitRetinaNet(backbone="tiny", max_size=100)
    with pytest.raises(SystemExit):
        CheckingTrainer.check(None, model, make(folder))
    assert "scaling them to max_size=100" in capsys.readouterr().out


def test_check__predicting_on_dark_images_of_16_bits_is_reported(folder):
    Image.fromarray(np.full((9, 9), 3000, np.uint16)).save(folder / "dark.png")
    assert "become nearly black" in check(CocoDataModule(predict=str(folder / "dark.png"))).text
