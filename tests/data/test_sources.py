"""Recognition of formats, what follows from it, and labels that several files share."""

from importlib.metadata import EntryPoint

import pytest

from lit_dense import CocoDataModule
from lit_dense.core.errors import UsageError
from lit_dense.data import DataError, check
from lit_dense.data.formats import FORMATS
from lit_dense.data.sources import recognise
from tests.builders.format_files import NAMES, write_coco, write_csv, write_images, write_voc, write_yolo

WRITERS = {"coco": write_coco, "yolo": write_yolo, "voc": write_voc, "csv": write_csv}


def module(root, kind, path, **options):
    images = {"train_images": "images"} if kind in ("coco", "csv") else {}
    return CocoDataModule(root, train_annotations=path.name, num_workers=0, **images | options)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("kind", list(WRITERS))
def test_format__is_recognised_or_given(tmp_path, kind, given):
    path = WRITERS[kind](tmp_path)
    data = module(tmp_path, kind, path, **{"format": kind} if given else {})
    data.setup("fit")
    whole = data.data["train"]
    assert whole.boxes.round(3).tolist() == [[5, 5, 15, 15], [20, 3, 28, 15], [0, 0, 40, 30]]
    names = [data.categories[label]["name"] for label in whole.labels(data._category_ids())]
    assert names == ["dog", "cat", "cat"]
    assert whole.file_names == ["a.png", "b.png", "c.png"]
    assert whole.image_ids.tolist() == [1, 2, 3]
    text = check(data).text
    assert ("train.json)" if kind == "coco" else f"{path.name}, {kind})") in text


def test_format__a_wrong_name_is_told_with_the_likely_one(tmp_path):
    path = write_yolo(tmp_path)
    write_voc(tmp_path)
    with pytest.raises(DataError, match=r"read as csv, but it looks like yolo(.*\n)*.*data.format=yolo"):
        module(tmp_path, "yolo", path, format="csv").setup("fit")
    with pytest.raises(DataError, match="read as coco, but it looks like voc"):
        module(tmp_path, "coco", tmp_path / "annotations", format="coco").setup("fit")
    with pytest.raises(UsageError, match=r"Unknown format 'yollo'\. Did you mean 'yolo'"):
        module(tmp_path, "yolo", path, format="yollo")


def test_format__an_unknown_file_is_told_what_is_accepted(tmp_path):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(UsageError, match=r"a.txt: the format is not recognised.*data.format names one: coco, csv"):
        module(tmp_path, "yolo", tmp_path / "a.txt").setup("fit")
    assert type(recognise(tmp_path / "none.yaml")).__name__ == "YOLOFormat"


def test_format__lvis_needs_its_lists(tmp_path):
    path = write_coco(tmp_path)
    with pytest.raises(DataError, match="not an LVIS file: no image has neg_category_ids"):
        module(tmp_path, "coco", path, format="lvis").setup("fit")


def test_format__files_may_appear_after_construction(tmp_path):
    data = CocoDataModule(tmp_path, train_annotations="data.yaml", num_workers=0)
    assert data.available == ["train"]
    write_yolo(tmp_path)
    write_yolo(tmp_path, {"d.png": [(0, 5, 5, 10, 10)]}, split="val", val="images/val")
    assert data.available == ["train", "val"]
    data.setup("fit")
    assert data.num_classes == 2


def test_sources__image_folders_are_checked(tmp_path):
    with pytest.raises(UsageError, match="train_annotations needs train_images"):
        CocoDataModule(tmp_path, train_annotations="train.json")
    with pytest.raises(UsageError, match="val_images needs val_annotations"):
        CocoDataModule(tmp_path, val_images="images")
    write_yolo(tmp_path)
    with pytest.raises(UsageError, match="val_images needs val_annotations"):
        assert CocoDataModule(tmp_path, train_annotations="data.yaml", val_images="images").available


def test_labels__names_get_the_ids_of_a_file_that_has_ids(tmp_path):
    write_coco(tmp_path / "coco", first_category=5)
    write_voc(tmp_path / "voc", {"e.png": [(1, 5, 5, 10, 10)]})
    write_images(tmp_path / "voc" / "images", ["x.png", "e.png"])
    (tmp_path / "voc" / "images" / "x.png").unlink()
    data = CocoDataModule(
        tmp_path,
        train_images="coco/images",
        train_annotations="coco/train.json",
        val_annotations="voc/annotations",
        val_images="voc/images",
        num_workers=0,
    )
    data.setup("fit")
    assert data.categories == [{"id": 5, "name": NAMES[0]}, {"id": 6, "name": NAMES[1]}]
    assert data.data["val"].category_ids.tolist() == [6]


def test_labels__a_test_file_does_not_change_them(tmp_path):
    write_voc(tmp_path / "train")
    write_voc(tmp_path / "test", {"e.png": [(0, 5, 5, 10, 10)]})
    path = tmp_path / "test" / "annotations" / "e.xml"
    path.write_text(path.read_text().replace("dog", "ant"))
    data = CocoDataModule(
        tmp_path, train_annotations="train/annotations", test_annotations="test/annotations", num_workers=0
    )
    data.setup("fit")
    assert data.categories == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    with pytest.raises(DataError, match=r"category 3: ant here, none there"):
        data.setup("test")


def test_format__of_another_package_is_recognised_after_the_own_ones(tmp_path, monkeypatch):
    point = EntryPoint("lines", "tests.testing.test_check_format:Lines", "lit_dense.formats")
    monkeypatch.setitem(FORMATS.points, "lines", [point])
    write_images(tmp_path / "images")
    (tmp_path / "data.rows").write_text("a.png,dog,1,2,10,11\nb.png,cat,3,4,10,11\n")
    for form in (None, "lines", "lit_dense.formats.lines"):
        data = CocoDataModule(tmp_path, train_annotations="data.rows", format=form, num_workers=0)
        data.setup("fit")
        assert data.categories == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
        assert data.data["train"].boxes.tolist() == [[1, 2, 11, 13], [3, 4, 13, 15]]
    assert "data.rows, lines)" in check(data).text


def test_formats__names_are_import_paths_and_classes_of_the_group():
    import lit_dense.formats

    for name in FORMATS.points:
        assert getattr(lit_dense.formats, name) is FORMATS.load(name)
        assert getattr(lit_dense.formats, FORMATS.load(name).__name__) is FORMATS.load(name)
    assert FORMATS.build({"class_path": "lit_dense.formats.voc", "init_args": {"first_pixel": 1}}).first_pixel == 1
