"""Roboflow's exports in its four formats, as its web page writes them."""

import json

import pytest

from lit_dense import CocoDataModule
from lit_dense.data import check
from tests.builders.format_files import (
    BOXES,
    NAMES,
    line_of,
    object_of,
    write_coco,
    write_csv,
    write_images,
    write_xml,
    xml_of,
)

SPLITS = {"train": BOXES, "valid": {"d.png": BOXES["b.png"]}, "test": {"e.png": BOXES["a.png"]}}
GROUP = {"id": 0, "name": "pets", "supercategory": "none"}


def write_export(root, kind):
    for number, (split, boxes) in enumerate(SPLITS.items()):
        folder = root / split
        write_images(folder if kind != "yolo" else folder / "images", [*(["x.png"] * number), *boxes])
        (folder / "x.png").unlink(missing_ok=True)
        (folder / "images" / "x.png").unlink(missing_ok=True)
        if kind == "coco":
            write_coco(root / "made", boxes)
            content = json.loads((root / "made" / "train.json").read_text())
            named = [{**category, "supercategory": "pets"} for category in content["categories"]]
            content["categories"] = [GROUP, *named]
            (folder / "_annotations.coco.json").write_text(json.dumps(content))
        elif kind == "csv":
            rows = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
            for name, entries in boxes.items():
                rows += [f"{name},40,30,{NAMES[i]},{x},{y},{x + w},{y + h}" for i, x, y, w, h in entries]
            (folder / "_annotations.csv").write_text("\n".join(rows))
        elif kind == "voc":
            for name, entries in boxes.items():
                objects = "".join(object_of(NAMES[i], x, y, x + w, y + h) for i, x, y, w, h in entries)
                write_xml(root / "made", name, xml_of(name, objects)).rename(folder / f"{name[0]}.xml")
        else:
            (folder / "labels").mkdir()
            for name, entries in boxes.items():
                (folder / "labels" / f"{name[0]}.txt").write_text("".join(line_of(*row) for row in entries))
    if kind == "yolo":
        paths = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n"
        (root / "data.yaml").write_text(f"{paths}\nnc: 2\nnames: ['dog', 'cat']\n")
    return root


def counts(root, **options):
    data = CocoDataModule(root, **{"num_workers": 0} | options)
    data.prepare_data()
    report = check(data)
    assert report.ok, report.text
    rows = [line.split()[:2] for line in report.text.splitlines() if line.strip().startswith(("cat ", "dog "))]
    return data, report.text, sorted(map(tuple, rows))


@pytest.mark.parametrize("kind", ["coco", "csv", "voc", "yolo"])
def test_data_module__an_exports_folder_defines_all_splits(tmp_path, kind):
    write_export(tmp_path, kind)
    data, text, rows = counts(tmp_path, train_annotations=".")
    assert data.available == ["train", "val", "test"]
    assert [category["name"] for category in data.categories] in (["cat", "dog"], ["dog", "cat"])
    expected = [("cat", "1"), ("cat", "1"), ("cat", "2"), ("dog", "1"), ("dog", "1")]
    if kind in ("coco", "yolo"):  # these list classes without boxes
        expected = sorted([*expected, ("dog", "0")])
    assert rows == expected
    assert "test: 1 images, 2 boxes" in text


@pytest.mark.parametrize("kind", ["coco", "csv", "voc", "yolo"])
def test_data_module__folders_of_splits_and_the_name_of_the_format(tmp_path, kind):
    write_export(tmp_path, kind)
    options = {"train_annotations": "train", "val_annotations": "valid"}
    if kind == "yolo":  # images and labels alone do not show that a folder is an export
        options["format"] = "roboflow"
    data, text, _ = counts(tmp_path, **options)
    assert data.available == ["train", "val"]
    assert "val: 1 images, 1 boxes" in text


def test_read__the_group_of_all_classes_is_dropped_and_that_is_said(tmp_path):
    write_export(tmp_path, "coco")
    for given in (".", "train", "train/_annotations.coco.json"):
        data, text, _ = counts(tmp_path, train_annotations=given)
        assert data.categories == [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
        assert "the first category is Roboflow's group of all classes, without boxes: 1 (dropped)" in text
        assert "category 0: pets" in text


def test_read__a_first_category_with_boxes_or_without_members_is_a_class(tmp_path):
    write_export(tmp_path, "coco")
    path = tmp_path / "train" / "_annotations.coco.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["category_id"] = 0
    path.write_text(json.dumps(content))
    assert counts(tmp_path, train_annotations="train")[0].num_classes == 3
    content["annotations"][0]["category_id"] = 1
    content["categories"][0]["name"] = "fish"
    path.write_text(json.dumps(content))
    assert counts(tmp_path, train_annotations="train")[0].num_classes == 3


def test_read__the_csv_of_another_place_is_a_plain_one(tmp_path):
    write_csv(tmp_path)
    data = CocoDataModule(tmp_path, "images", "train.csv", num_workers=0)
    assert type(data.sources["train"].format).__name__ == "CSVFormat"
