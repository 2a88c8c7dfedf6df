import json
import shutil

import numpy as np
import pytest

from lit_dense import CocoDataModule
from lit_dense.core.errors import UsageError
from lit_dense.data import DataError, check
from lit_dense.data.formats.base import Request
from lit_dense.data.formats.yolo import YOLOFormat
from lit_dense.data.problems import Problems
from tests.builders.format_files import BOXES, line_of, write_images, write_label, write_yolo


def read(path, split="train", **request):
    problems = Problems()
    return YOLOFormat().read(Request(path, split=split, **request), problems), problems


def module(root, **options):
    return CocoDataModule(root, **{"train_annotations": "data.yaml", "num_workers": 0} | options)


def told(problems):
    return problems.report(strict=False)


def test_read__boxes_are_shares_of_the_image_and_images_are_sorted(tmp_path):
    content, problems = read(write_yolo(tmp_path, dict(reversed(BOXES.items()))))
    assert not problems.found
    assert [entry["file_name"] for entry in content.images] == ["a.png", "b.png", "c.png"]
    assert content.categories == [{"id": 0, "name": "dog"}, {"id": 1, "name": "cat"}]
    np.testing.assert_allclose(content.annotations["bbox"][0], [5 / 40, 5 / 30, 10 / 40, 10 / 30], atol=1e-7)
    assert content.annotations["image_id"].tolist() == [1, 1, 2]
    assert content.annotations["category_id"].tolist() == [0, 1, 1]


def test_data_module__boxes_are_in_pixels(tmp_path):
    write_yolo(tmp_path)
    data = module(tmp_path)
    data.setup("fit")
    np.testing.assert_allclose(data.data["train"].boxes[1], [20, 3, 28, 15], atol=1e-5)
    assert data.data["train"].sizes.tolist() == [[30, 40]] * 3


@pytest.mark.parametrize(
    ("line", "what", "repair", "detail"),
    [
        ("0 .5 .5 .2\n", "lines with a wrong number of columns", "dropped", "line 2: 4 columns, 0 .5 .5 .2"),
        ("0 .5 .5 .2 .2 .9\n", "lines with a wrong number of columns", "dropped", "line 2: 6 columns"),
        ("0 .5 .5 .2 .2 .9 .1 .2\n", "lines with a wrong number of columns", "dropped", "line 2: 8 columns"),
        ("2 .5 .5 .2 .2\n", "class indices without a name", "dropped", "line 2: class 2, there are 2 classes, 0 to 1"),
        ("-1 .5 .5 .2 .2\n", "class indices without a name", "dropped", "line 2: class -1"),
        ("0.5 .5 .5 .2 .2\n", "class indices without a name", "dropped", "line 2: class 0.5"),
        ("cats .5 .5 .2 .2\n", "classes that are neither an index nor a known name", "dropped", "Did you mean 'cat'?"),
        ("cat .5 .5 .2 .2\n", "class names instead of class indices", "read by name", "line 2: cat"),
        ("0,.5,.5,.2,.2\n", "lines with other separators than spaces", "read with them", "line 2: 0,.5,.5,.2,.2"),
        ("0; .5; .5; .2; .2\n", "lines with other separators than spaces", "read with them", "line 2"),
        ("0 0,5 0,5 0,2 0,2\n", "lines with other separators than spaces", "read with them", "line 2"),
        ("0 .5 x .2 .2\n", "lines with values that are not numbers", "dropped", "line 2: 0 .5 x .2 .2"),
        ("0 .5 .5 1.2 .2\n", "coordinates outside 0 to 1", "clipped to the image", "line 2: 0.5 0.5 1.2 0.2"),
        ("0 -.5 .5 .2 .2\n", "coordinates outside 0 to 1, with nothing inside the image", "dropped", "line 2: -0.5"),
    ],
)  # fmt: skip
def test_read__faulty_lines_are_reported_with_file_and_line(tmp_path, line, what, repair, detail):
    path = write_yolo(tmp_path)
    write_label(tmp_path, "a.png", line_of(0, 5, 5, 10, 10) + line + line_of(1, 20, 3, 8, 12))
    content, problems = read(path)
    (problem,) = problems.found
    assert (problem.what, problem.repair, problem.count) == (what, repair, 1)
    assert problem.examples[0].startswith("labels/train/a.txt, line 2: ")
    assert detail in problem.examples[0]
    assert len(content.annotations) == (3 if repair == "dropped" else 4)
    if repair == "read with them":
        np.testing.assert_allclose(content.annotations["bbox"][1], [0.4, 0.4, 0.2, 0.2])
    lines = [content.place(row) for row in range(len(content.annotations))]
    assert lines[0] == "labels/train/a.txt, line 1"
    assert lines[-2:] == ["labels/train/a.txt, line 3", "labels/train/b.txt, line 1"]


@pytest.mark.parametrize("end", ["\r\n", "\n\n", " \t\n"])
def test_read__line_ends_blank_lines_and_tabs(tmp_path, end):
    path = write_yolo(tmp_path)
    text = line_of(0, 5, 5, 10, 10).strip().replace(" ", "\t") + end + line_of(1, 20, 3, 8, 12).strip()
    write_label(tmp_path, "a.png", "").write_bytes(b"\xef\xbb\xbf" + text.encode())
    content, problems = read(path)
    assert not problems.found
    assert len(content.annotations) == 3


def test_read__pixels_instead_of_shares_are_an_error_with_the_cure(tmp_path):
    path = write_yolo(tmp_path)
    write_label(tmp_path, "a.png", "0 10 10 10 10\n1 20 10 5 5\n0 8 8 3 3\n")
    _, problems = read(path)
    (problem,) = problems.errors(strict=False)
    assert (problem.what, problem.count) == ("coordinates outside 0 to 1", 3)
    assert "divide x and width by the image's width" in problem.cure


def test_read__polygons_become_boxes_and_are_kept_where_masks_are_needed(tmp_path):
    path = write_yolo(tmp_path)
    write_label(tmp_path, "a.png", "1 0.1 0.2 0.5 0.2 0.3 0.6\n" + line_of(0, 5, 5, 10, 10))
    content, problems = read(path, masks=True)
    assert not problems.found
    np.testing.assert_allclose(content.annotations["bbox"][0], [0.1, 0.2, 0.4, 0.4])
    assert content.segmentations == [[[0.1, 0.2, 0.5, 0.2, 0.3, 0.6]], None, None]
    assert read(path)[0].segmentations is None


def test_read__keypoints_behind_the_box_are_ignored(tmp_path):
    path = write_yolo(tmp_path, kpt_shape=[2, 3])
    write_label(tmp_path, "a.png", line_of(0, 5, 5, 10, 10).strip() + " .1 .1 2 .2 .2 2\n")
    content, problems = read(path)
    assert not problems.found
    np.testing.assert_allclose(content.annotations["bbox"][0], [5 / 40, 5 / 30, 10 / 40, 10 / 30], atol=1e-7)


def test_read__missing_and_empty_label_files_are_images_without_objects(tmp_path):
    path = write_yolo(tmp_path)
    (tmp_path / "labels" / "train" / "b.txt").unlink()
    write_label(tmp_path, "z.png", line_of(0, 5, 5, 10, 10))
    content, problems = read(path)
    assert len(content.images) == 3
    assert content.annotations["image_id"].tolist() == [1, 1]
    missing, orphan = problems.found
    assert (missing.what, missing.repair) == ("images without a label file", "used as images without objects")
    assert missing.examples == (f"b.png: looked for {tmp_path}/labels/train/b.txt",)
    assert (orphan.what, orphan.examples) == ("label files without an image", ("labels/train/z.txt",))


def test_read__no_label_file_at_all_is_an_error_that_states_the_rule(tmp_path):
    path = write_yolo(tmp_path)
    shutil.rmtree(tmp_path / "labels")
    _, problems = read(path)
    (problem,) = problems.errors(strict=False)
    assert problem.what == "no label file for any image"
    assert "the last folder called images is replaced" in problem.cure


def test_read__labels_beside_the_images(tmp_path):
    write_images(tmp_path / "train", BOXES)
    for name, rows in BOXES.items():
        (tmp_path / "train" / f"{name[0]}.txt").write_text("".join(line_of(*row) for row in rows))
    (tmp_path / "data.yaml").write_text(json.dumps({"train": "train", "names": {"0": "dog", "1": "cat"}}))
    content, problems = read(tmp_path / "data.yaml")
    assert not problems.found
    assert len(content.annotations) == 3


def test_read__suffixes_in_capitals_are_images_and_one_stem_twice_is_reported(tmp_path):
    write_yolo(tmp_path, {"a.PNG": BOXES["a.png"], "b.JPG": []})
    write_images(tmp_path / "images" / "train", ["a.jpg"])
    report = check(module(tmp_path))
    assert "train: 3 images, 4 boxes" in report.text
    assert (
        "images whose names differ only in the suffix, which have one label file: 1 (left as they are)" in report.text
    )
    assert "a.PNG, a.jpg" in report.text


def test_read__lists_of_images_and_several_folders(tmp_path):
    write_yolo(tmp_path)
    write_yolo(tmp_path, {"d.png": BOXES["b.png"]}, split="more", train=["images/more", "train.txt"])
    (tmp_path / "train.txt").write_text("./images/train/a.png\nimages/train/b.png\nimages/train/b.png\n\n")
    content, problems = read(tmp_path / "data.yaml")
    assert [entry["file_name"] for entry in content.images] == ["more/d.png", "train/a.png", "train/b.png"]
    assert content.annotations["image_id"].tolist() == [1, 2, 2, 3]
    assert [problem.what for problem in problems.found] == ["images listed more than once"]
    data = module(tmp_path)
    data.setup("fit")
    assert len(data.data["train"]) == 3


def test_read__a_listed_image_that_is_missing_is_reported_as_in_every_format(tmp_path):
    write_yolo(tmp_path, train="train.txt")
    (tmp_path / "train.txt").write_text("images/train/a.png\nimages/train/none.png\n")
    text = check(module(tmp_path)).text
    assert "missing image files: 1 (dropped)" in text
    assert "images without a label file: 1" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [images", "not YAML: .* in line 1, column"),
        ("- a\n", "not a data.yaml of YOLO"),
        ("names:\n  0: cat\n  1: dog\n  1: bird\n", "line 4: the key 1 was given in line 3 already"),
        ("train: images/train\nnames: [cat]\nnames: [dog]\n", "line 3: the key names was given in line 2 already"),
        ("train: images/train\nnames: {1: cat, '1': dog}\n", "class indices given more than once"),
        ("train: images/train\n", "no class names: .* the keys are train"),
        ("train: images/train\nnames: 3\n", "no class names: .*; it is 3"),
        ("names: [dog, cat]\nvalue: 3\n", "no entry 'train': the keys are names, value"),
        ("train: nowhere\nnames: [dog, cat]\n", "missing image folders or lists(.*\n)*.*train: nowhere; looked for"),
    ],
)  # fmt: skip
def test_read__faults_of_data_yaml(tmp_path, text, message):
    write_yolo(tmp_path)
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        module(tmp_path).setup("fit")


def test_read__a_data_yaml_in_another_encoding_is_named(tmp_path):
    write_yolo(tmp_path)
    (tmp_path / "data.yaml").write_bytes("# \u00e9\ntrain: images/train\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"(?s)not UTF-8 text: .* in line 1\..*save the file as UTF-8"):
        module(tmp_path).setup("fit")


@pytest.mark.parametrize("names", [[None, "cat"], [False, "cat"], {0: "dog", 1: ["cat"]}, ["dog", " "]])
def test_read__names_that_are_not_text_are_an_error(tmp_path, names):
    content, problems = read(write_yolo(tmp_path, names=names))
    assert content is None
    (problem,) = problems.found
    assert (problem.what, problem.count, problem.repair) == ("class names that are not text", 1, "")
    assert "put quotes around names such as 'no'" in problem.cure


def test_read__numbers_are_names(tmp_path):
    content, problems = read(write_yolo(tmp_path, names=[7, 8], nc="2"))
    assert not problems.found
    assert [category["name"] for category in content.categories] == ["7", "8"]


def test_read__an_entry_that_is_an_image(tmp_path):
    content, problems = read(write_yolo(tmp_path, train="images/train/a.png"))
    assert content is None
    assert problems.found[0].what == "entries that are neither a folder nor a list of images"


def test_read__decimal_commas_between_other_separators(tmp_path):
    path = write_yolo(tmp_path)
    write_label(
        tmp_path, "b.png", "1;0,5;0,5;0,25;0,5\n1 ; 0,5 ; 0,5 ; 0,25 ; 0,5\n1|0.5|0.5|0.25|0.5\n1,0.5,0.5,0.25,0.5\n"
    )
    content, problems = read(path)
    assert content.annotations["bbox"][2:].tolist() == [[0.375, 0.25, 0.25, 0.5]] * 4
    assert problems.found[0].count == 4


def test_read__infinite_values_give_no_warning_of_numpy(tmp_path, recwarn):
    path = write_yolo(tmp_path)
    write_label(tmp_path, "b.png", "1 inf 0.5 inf 0.2\n1 -inf 0.5 inf 0.2\n1 nan 0.5 0.2 0.2\n1 0.5 0.5 1e308 1e308\n")
    read(path)
    assert not recwarn.list


def test_read__an_empty_or_repeated_line_of_classes_txt_keeps_the_other_indices(tmp_path):
    write_yolo(tmp_path)
    (tmp_path / "labels/train/classes.txt").write_text("cat\n\ncat\ndog\n")
    write_label(tmp_path, "b.png", "3 0.5 0.5 0.25 0.5\n1 0.5 0.5 0.25 0.5\n")
    content, problems = read(tmp_path / "labels/train")
    assert content.categories == [{"id": 0, "name": "cat"}, {"id": 2, "name": "cat"}, {"id": 3, "name": "dog"}]
    assert content.annotations["category_id"].tolist() == [0, 3]
    assert "class indices without a name: 2 (dropped)" in told(problems)


def test_read__a_missing_file_names_the_nearest(tmp_path):
    write_yolo(tmp_path)
    with pytest.raises(DataError, match=r"no such file. Did you mean 'data.yaml'\?"):
        module(tmp_path, train_annotations="dota.yaml").setup("fit")


def test_read__a_wrong_number_of_classes_is_reported(tmp_path):
    _, problems = read(write_yolo(tmp_path, nc=3))
    assert problems.found[0].what == "nc is 3, but there are 2 names"


def test_read__roboflows_paths_one_folder_too_high(tmp_path):
    content, problems = read(write_yolo(tmp_path, train="../images/train"))
    assert not problems.found
    assert len(content.annotations) == 3


def test_read__a_path_that_is_relative_to_the_file_or_does_not_exist(tmp_path):
    write_yolo(tmp_path / "set", path="set")
    assert len(read(tmp_path / "set" / "data.yaml")[0].annotations) == 3


def test_read__weights_are_refused(tmp_path):
    write_yolo(tmp_path)
    with pytest.raises(DataError, match="no weight 'hardness': label files hold no weights"):
        module(tmp_path, weight_key="hardness").setup("fit")


def test_splits__data_yaml_defines_all_splits(tmp_path):
    write_yolo(tmp_path)
    write_yolo(tmp_path, {"d.png": BOXES["b.png"]}, split="val", val="images/val")
    data = module(tmp_path)
    assert data.available == ["train", "val"]
    data.setup("fit")
    assert data.data["val"].file_names == ["d.png"]
    assert "val: 1 images, 1 boxes" in check(data).text
    assert "Roboflow" not in check(data).text
    with pytest.raises(UsageError, match="leave out val_split"):
        assert module(tmp_path, val_split=0.5).available


def test_splits__a_validation_set_that_is_the_training_set_is_not_used(tmp_path):
    write_yolo(tmp_path, val="images/train")
    data = module(tmp_path, val_split=0.34)
    data.setup("fit")
    assert {split: len(part) for split, part in data.data.items()} == {"train": 2, "val": 1}
    given = module(tmp_path, val_annotations="data.yaml")
    given.setup("fit")
    assert len(given.data["val"]) == 3


def test_read__a_folder_of_labels_with_classes_txt(tmp_path):
    write_yolo(tmp_path)
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "labels" / "train" / "classes.txt").write_text("dog\ncat\n")
    content, problems = read(tmp_path / "labels" / "train")
    assert not problems.found
    assert len(content.annotations) == 3
    assert YOLOFormat().recognises(tmp_path / "labels" / "train")


@pytest.mark.parametrize(
    ("names", "classes", "word", "cure"),
    [
        (["dog", "cat"], (1, 2), "more", "the labels use 1 to 2, the names have 0 to 1: subtract 1 from each index"),
        ({1: "dog", 2: "cat"}, (0, 1), "less", "the labels use 0 to 1, the names have 1 to 2: add 1 to each index"),
    ],
)
def test_read__indices_that_are_all_shifted_by_one_are_an_error(tmp_path, names, classes, word, cure):
    _, problems = read(write_yolo(tmp_path, {"a.png": [(index, 5, 5, 9, 9) for index in classes]}, names=names))
    (error,) = problems.errors(strict=False)
    assert (error.what, error.count) == (f"class indices that are one {word} than those of the names", 1)
    assert "labels/train/a.txt, line" in error.examples[0]
    assert cure in error.cure


def test_read__keypoints_without_kpt_shape_are_an_error(tmp_path):
    path = write_yolo(tmp_path)
    line = "0 0.7 0.7 0.2 0.2 0.65 0.7 1 0.75 0.7 0\n"
    write_label(tmp_path, "a.png", line * 6)
    _, problems = read(path)
    (error,) = problems.errors(strict=False)
    assert (error.what, error.count) == ("lines that look like a box with keypoints", 6)
    assert error.examples[0] == f"labels/train/a.txt, line 1: {line.strip()}"
    assert "kpt_shape: [2, 3]" in error.cure
    assert not read(write_yolo(tmp_path / "posed", kpt_shape=[2, 3]))[1].found
