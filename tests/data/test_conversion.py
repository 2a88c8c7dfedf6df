"""Conversion between formats: the same data in each, round trips, and what is told to be lost."""

import json
import re

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lit_dense import CocoDataModule
from lit_dense.__main__ import main
from lit_dense.core.errors import UsageError
from lit_dense.data import DataError, check, conversion
from lit_dense.data.conversion import convert
from lit_dense.data.file_names import ignores_case
from lit_dense.data.formats import losses
from tests.builders.coco_files import box_entry, image_entry, write_image, write_json, write_noise
from tests.builders.format_files import NAMES, line_of, write_coco, write_images, write_label, write_voc, write_yolo

SPLITS = {
    "coco": {s: {f"{s}_annotations": f"annotations/{s}.json", f"{s}_images": f"images/{s}"} for s in ("train", "val")},
    "yolo": {"train": {"train_annotations": "data.yaml"}, "val": {}},
    "voc": {s: {f"{s}_annotations": f"annotations/{s}"} for s in ("train", "val")},
    "csv": {s: {f"{s}_annotations": f"{s}.csv"} for s in ("train", "val")},
}


def converted(root, kind, *splits, **options):
    """A data module of a converted data set."""
    paths = {key: value for split in splits or ("train",) for key, value in SPLITS[kind][split].items()}
    return CocoDataModule(root, **{"num_workers": 0, "batch_size": 3} | paths | options)


def source(root, **options):
    return CocoDataModule(
        root, **{"train_images": "images", "train_annotations": "train.json", "num_workers": 0} | options
    )


def content(root, file="annotations/train.json"):
    return json.loads((root / file).read_text())


@pytest.mark.parametrize("kind", ["yolo", "voc", "csv"])
@pytest.mark.filterwarnings("ignore:The data was repaired")
def test_convert__the_same_summary_and_training_batches_in_every_format(tmp_path, kind):
    write_noise(tmp_path / "source", 7)
    write_noise(tmp_path / "source", 4, "val", first_id=21)
    paths = {f"{s}_{w}": v for s in ("train", "val") for w, v in (("images", s), ("annotations", f"{s}.json"))}
    first = CocoDataModule(tmp_path / "source", **paths, num_workers=0, batch_size=3, seed=3)
    result = convert(first, kind, tmp_path / kind)
    assert result.counts == {"train": (7, 7), "val": (4, 3)}
    second = converted(tmp_path / kind, kind, "train", "val", seed=3)
    summaries = [re.sub(r"  \(/.*\)|.*: \d.*", "", check(data).text) for data in (first, second)]
    tables = [re.findall(r"^  (?:cat|dog) .*", check(data).text, re.M) for data in (first, second)]
    assert tables[0] == tables[1]
    assert summaries[0].split("Problems")[0] == summaries[1].split("Problems")[0]
    for data in (first, second):
        data.setup("fit")
    for (images, targets), (others, same) in zip(first.train_dataloader(), second.train_dataloader(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(images, others, strict=True))
        for target, other in zip(targets, same, strict=True):
            torch.testing.assert_close(target["boxes"], other["boxes"], atol=1e-3, rtol=0)
            assert torch.equal(target["labels"], other["labels"])
            assert target["file_name"] == other["file_name"].rpartition("/")[2]


@st.composite
def boxes(draw):
    """Boxes inside 40 x 30 with two decimals, at least two pixels wide and high."""
    x, y = draw(st.integers(0, 3800)), draw(st.integers(0, 2800))
    w, h = draw(st.integers(200, 4000 - x)), draw(st.integers(200, 3000 - y))
    return draw(st.integers(0, 1)), x / 100, y / 100, w / 100, h / 100


@pytest.mark.parametrize("kind", ["yolo", "voc", "csv", "coco"])
@given(images=st.lists(st.lists(boxes(), max_size=3), min_size=1, max_size=4))
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_convert__there_and_back_gives_the_same_file(tmp_path_factory, kind, images):
    root = tmp_path_factory.mktemp("there")
    data = {f"{index}.png": entries for index, entries in enumerate(images)}
    write_coco(root, data)
    before = content(root, "train.json")
    convert(source(root), kind, root / kind)
    module = converted(root / kind, kind)
    result = convert(module, "coco", root / "back")
    after = content(root / "back")
    assert not result.losses
    prefix = "images/train/" if kind == "csv" else ""
    assert [(e["id"], e["file_name"], e["width"], e["height"]) for e in after["images"]] == [
        (e["id"], prefix + e["file_name"], 40, 30) for e in before["images"]
    ]
    assert [c["name"] for c in after["categories"]] == [c["name"] for c in before["categories"]]
    first = before["categories"][0]["id"] - after["categories"][0]["id"]
    for old, new in zip(before["annotations"], after["annotations"], strict=True):
        assert (old["image_id"], old["category_id"]) == (new["image_id"], new["category_id"] + first)
        assert old["bbox"] == new["bbox"]


def rich(root):
    """A COCO file with everything that other formats may not hold."""
    for number in (7, 3):
        write_image(root / "images" / f"{number}.png", seed=number)
    square = [5.0, 5.0, 15.0, 5.0, 15.0, 15.0, 5.0, 15.0]
    annotations = [
        box_entry(12, 7, area=50.0, segmentation=[[5.0, 5.0, 15.0, 5.0, 5.0, 15.0]], hard=2.5),
        box_entry(15, 3, (20, 2, 10, 10), 7, iscrowd=1, segmentation={"counts": [1, 2], "size": [30, 40]}),
        box_entry(11, 7, (5, 5, 10, 10), 7, segmentation=[square, square]),
    ]
    images = [image_entry(7, neg_category_ids=[3], not_exhaustive_category_ids=[]), image_entry(3)]
    return write_json(root / "train.json", images, annotations)


LOST = {
    "coco": [],
    "yolo": [
        "crowd boxes (iscrowd, difficult), which are left out: 1",
        "masks of several parts or run-length encoded, which are written as boxes: 2",
        "areas of masks: 1",
        "weights of boxes: 1",
        "images with LVIS's lists of classes: 1",
        "image ids and the order of images: images are numbered from 1, sorted by name",
        "annotation ids: boxes are numbered from 1, sorted by image",
        "category ids: classes are numbered from 0, in the same order",
    ],
    "voc": [
        "polygons and masks, which are written as boxes: 3",
        "areas of masks: 1",
        "images with LVIS's lists of classes: 1",
        "image ids and the order of images: images are numbered from 1, sorted by name",
        "annotation ids: boxes are numbered from 1, sorted by image",
        "category ids: classes are numbered from 1, in the same order",
    ],
    "csv": [
        "crowd boxes (iscrowd, difficult), which are left out: 1",
        "polygons and masks, which are written as boxes: 3",
        "areas of masks: 1",
        "images with LVIS's lists of classes: 1",
        "image ids and the order of images: images are numbered from 1, sorted by name",
        "annotation ids: boxes are numbered from 1, sorted by image",
        "category ids: classes are numbered from 1, in the same order",
    ],
}


@pytest.mark.parametrize("name", [" dog", "dog\nhound"])
def test_convert__names_of_classes_that_a_text_file_cannot_hold_are_refused(tmp_path, name):
    write_coco(tmp_path)
    document = content(tmp_path, "train.json")
    document["categories"][0]["name"] = name
    (tmp_path / "train.json").write_text(json.dumps(document))
    for kind in ("voc", "csv"):
        with pytest.raises(UsageError, match=r"cannot hold the name of the class ' ?dog"):
            convert(source(tmp_path), kind, tmp_path / kind)
    convert(source(tmp_path), "yolo", tmp_path / "yolo")
    again = converted(tmp_path / "yolo", "yolo")
    again.setup("fit")
    assert name in [category["name"] for category in again.categories]


@pytest.mark.parametrize("kind", list(LOST))
def test_convert__says_what_the_format_cannot_hold(tmp_path, kind):
    rich(tmp_path)
    result = convert(source(tmp_path, weight_key="hard"), kind, tmp_path / "out")
    assert result.losses == LOST[kind]
    assert ("nothing is lost" in result.text()) == (kind == "coco")
    assert all(f"  - {line}" in result.text() for line in LOST[kind])


def test_convert__coco_to_coco_keeps_everything(tmp_path):
    rich(tmp_path)
    convert(source(tmp_path, weight_key="hard"), "coco", tmp_path / "out")
    before, after = content(tmp_path, "train.json"), content(tmp_path / "out")
    assert after["images"] == before["images"]
    assert after["categories"] == before["categories"]
    wanted = {entry["id"]: {"area": 100, "iscrowd": 0, "hard": 1.0, **entry} for entry in before["annotations"]}
    assert {entry["id"]: entry for entry in after["annotations"]} == wanted


def test_convert__polygons_crowds_and_weights_where_the_format_holds_them(tmp_path):
    rich(tmp_path)
    convert(source(tmp_path), "yolo", tmp_path / "yolo")
    assert (tmp_path / "yolo/labels/train/7.txt").read_text().splitlines()[0] == (
        "0 0.125 0.1666666667 0.375 0.1666666667 0.125 0.5"
    )
    convert(converted(tmp_path / "yolo", "yolo"), "coco", tmp_path / "back")
    (entry,) = [entry for entry in content(tmp_path / "back")["annotations"] if entry["category_id"] == 0]
    np.testing.assert_allclose(entry["segmentation"], [[5, 5, 15, 5, 5, 15]], atol=1e-6)
    assert entry["area"] == pytest.approx(50)
    convert(source(tmp_path, weight_key="hard"), "voc", tmp_path / "voc")
    convert(converted(tmp_path / "voc", "voc", weight_key="hard"), "coco", tmp_path / "again")
    entries = content(tmp_path / "again")["annotations"]
    assert [(entry["iscrowd"], entry["hard"]) for entry in entries] == [(1, 1.0), (0, 2.5), (0, 1.0)]


def test_convert__repairs_are_told_and_errors_stop_it_before_anything_is_written(tmp_path):
    write_yolo(tmp_path / "a")
    write_label(tmp_path / "a", "a.png", line_of(0, 5, 5, 10, 10) + "7 .5 .5 .2 .2\n" + line_of(1, 30, 5, 20, 10))
    result = convert(CocoDataModule(tmp_path / "a", train_annotations="data.yaml"), "coco", tmp_path / "out")
    assert "labels/train/a.txt, line 2: class 7" in result.text()
    boxes = [entry["bbox"] for entry in content(tmp_path / "out")["annotations"]]
    assert boxes[1] == pytest.approx([30, 5, 10, 10], abs=1e-5)
    (tmp_path / "a" / "data.yaml").write_text("train: images/train\n")
    with pytest.raises(DataError, match="no class names"):
        convert(CocoDataModule(tmp_path / "a", train_annotations="data.yaml"), "coco", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_convert__refusals(tmp_path):
    write_coco(tmp_path)
    data = source(tmp_path)
    with pytest.raises(UsageError, match="exists and is not empty: choose another folder"):
        convert(data, "yolo", tmp_path)
    with pytest.raises(UsageError, match="RoboflowFormat cannot be written"):
        convert(data, "roboflow", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match=r"leave val_split out, or add --data\.val_split=0"):
        convert(source(tmp_path, val_split=0.3), "yolo", tmp_path / "out")
    with pytest.raises(UsageError, match="There is nothing to convert"):
        convert(CocoDataModule(tmp_path), "yolo", tmp_path / "out")


def test_convert__two_images_of_one_stem_are_refused_where_they_would_share_a_file(tmp_path):
    write_coco(tmp_path, {"a.png": [], "a.jpg": [(0, 5, 5, 10, 10)]})
    for kind in ("yolo", "voc"):
        with pytest.raises(UsageError, match=r"train: a\.png and a.jpg would have one file of boxes"):
            convert(source(tmp_path), kind, tmp_path / "out")
    convert(source(tmp_path), "csv", tmp_path / "out")


@pytest.mark.parametrize(
    ("names", "said"), [(("a.jpg", "A.JPG"), "one file in"), (("a.jpg", "A.png"), "one file of boxes")]
)
def test_convert__names_that_differ_in_case_are_refused_where_the_file_system_ignores_it(
    tmp_path, monkeypatch, names, said
):
    if ignores_case(tmp_path):
        pytest.skip("this file system cannot hold the images")
    write_coco(tmp_path, {name: [] for name in names})
    for kind in ("coco", "yolo", "voc", "csv"):
        convert(source(tmp_path), kind, tmp_path / kind)  # this file system distinguishes them
    for module in (conversion, losses):
        monkeypatch.setattr(module, "ignores_case", lambda folder: True)
    for kind in ("yolo", "voc"):
        with pytest.raises(UsageError, match=rf"train: {names[0]} and {names[1]} would (be|have) {said}"):
            convert(source(tmp_path), kind, tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_convert__subfolders_and_classes_without_boxes_are_kept(tmp_path):
    write_coco(tmp_path, {"x/a.png": [(1, 5, 5, 10, 10)], "y/a.png": []})
    for kind in ("yolo", "voc", "csv"):
        convert(source(tmp_path), kind, tmp_path / kind)
        data = converted(tmp_path / kind, kind)
        data.setup("fit")
        assert [category["name"] for category in data.categories] == list(NAMES)
        assert [name.removeprefix("images/train/") for name in data.data["train"].file_names] == ["x/a.png", "y/a.png"]
        assert data.data["train"].labels(data._category_ids()).tolist() == [1]


def test_convert__voc_of_the_challenge_counts_from_1(tmp_path):
    write_coco(tmp_path, {"a.png": [(0, 0, 0, 40, 30)]})
    spec = {"class_path": "voc", "init_args": {"first_pixel": 1}}
    convert(source(tmp_path), spec, tmp_path / "voc")
    assert (
        "<xmin>1</xmin><ymin>1</ymin><xmax>40</xmax><ymax>30</ymax>"
        in (tmp_path / "voc/annotations/train/a.xml").read_text()
    )
    data = converted(tmp_path / "voc", "voc", format=spec)
    data.setup("fit")
    assert data.data["train"].boxes.tolist() == [[0, 0, 40, 30]]


def test_main__convert_takes_the_arguments_of_the_data_module_and_configurations(tmp_path, capsys):
    write_voc(tmp_path / "voc")
    main(["convert", "--from=voc", "--to=yolo", f"--out={tmp_path / 'yolo'}", f"--data.root={tmp_path / 'voc'}",
          "--data.train_annotations=annotations"])  # fmt: skip
    text = capsys.readouterr().out
    assert "train: 3 images, 3 boxes" in text
    assert "category ids: classes are numbered from 0" in text
    config = tmp_path / "config.yaml"
    config.write_text(f"model: {{backbone: tiny}}\ndata: {{root: {tmp_path / 'yolo'}, train_annotations: data.yaml}}\n")
    main(["convert", "--config", str(config), "--to", "coco", "--out", str(tmp_path / "coco")])
    assert len(content(tmp_path / "coco")["annotations"]) == 3
    with pytest.raises(SystemExit):
        main(["convert", "--config=none.yaml", "--to=coco", f"--out={tmp_path / 'x'}"])
    assert "there is no configuration none.yaml" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["convert", "--to=yollo", f"--out={tmp_path / 'x'}", f"--config={config}"])
    assert "Did you mean 'yolo'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["convert", f"--out={tmp_path / 'x'}"])
    assert "are required: to" in capsys.readouterr().err


def test_convert__images_of_another_file_system_are_copied(tmp_path, monkeypatch):
    write_coco(tmp_path)
    convert(source(tmp_path), "coco", tmp_path / "linked")
    assert (tmp_path / "linked/images/train/a.png").stat().st_ino == (tmp_path / "images/a.png").stat().st_ino

    def refuse(*_):
        raise OSError

    monkeypatch.setattr("os.link", refuse)
    convert(source(tmp_path), "coco", tmp_path / "copied")
    assert (tmp_path / "copied/images/train/a.png").read_bytes() == (tmp_path / "images/a.png").read_bytes()
    write_images(tmp_path / "images")


@pytest.mark.parametrize("kind", ["coco", "yolo", "voc", "csv"])
def test_convert__ignore_regions_of_a_key_stay_ignore_regions(tmp_path, kind):
    write_noise(tmp_path / "source", 3)
    entries = content(tmp_path / "source", "train.json")
    for one in entries["annotations"]:
        one["difficult"] = one["id"] % 2
    (tmp_path / "source" / "train.json").write_text(json.dumps(entries))
    convert(source(tmp_path / "source", train_images="train", ignore_key="difficult"), kind, tmp_path / "out")
    objects = sum(not one["difficult"] for one in entries["annotations"])
    assert 0 < objects < len(entries["annotations"])
    data = converted(tmp_path / "out", kind)
    data.setup("fit")
    assert int((~data.data["train"].iscrowd).sum()) == objects


def test_convert__a_file_with_two_entries_is_refused(tmp_path):
    write_noise(tmp_path / "source", 3)
    entries = content(tmp_path / "source", "train.json")
    entries["images"].append(entries["images"][0] | {"id": 99})
    (tmp_path / "source" / "train.json").write_text(json.dumps(entries))
    with pytest.raises(UsageError, match="has 2 entries, and annotations of one image cannot be in several"):
        convert(source(tmp_path / "source", train_images="train"), "yolo", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_convert__background_images_are_told_to_be_left_out(tmp_path):
    write_noise(tmp_path / "source", 3)
    write_image(tmp_path / "empty" / "a.png")
    data = source(tmp_path / "source", train_images="train", background_images=str(tmp_path / "empty"))
    assert "images of background_images, which are left out" in convert(data, "coco", tmp_path / "out").losses
