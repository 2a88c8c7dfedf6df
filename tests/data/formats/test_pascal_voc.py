import pickle
import shutil

import pytest

from lit_dense import CocoDataModule
from lit_dense.core.errors import UsageError
from lit_dense.data import DataError, check
from lit_dense.data.formats.base import Request
from lit_dense.data.formats.pascal_voc import VOCFormat
from lit_dense.data.formats.pascal_voc_xml import _regular, line_of_object, parse_voc
from lit_dense.data.formats.roboflow import RoboflowFormat
from lit_dense.data.problems import Problems
from tests.builders.format_files import object_of, write_images, write_voc, write_xml, xml_of


def read(path, split="train", form=None, **request):
    problems = Problems()
    return (form or VOCFormat()).read(Request(path, split=split, **request), problems), problems


def module(root, **options):
    return CocoDataModule(root, **{"train_annotations": "annotations", "num_workers": 0} | options)


def test_read__corners_are_used_as_written_and_classes_are_sorted(tmp_path):
    content, problems = read(write_voc(tmp_path))
    assert not problems.found
    assert content.folder == tmp_path / "images"
    assert [entry["file_name"] for entry in content.images] == ["a.png", "b.png", "c.png"]
    assert content.images[0]["width"] == 40
    assert content.annotations["bbox"].tolist() == [[5, 5, 10, 10], [20, 3, 8, 12], [0, 0, 40, 30]]
    assert content.categories == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert content.annotations["category_id"].tolist() == [2, 1, 1]


def test_read__the_first_pixel_can_be_1(tmp_path):
    path = write_voc(tmp_path)
    write_xml(tmp_path, "b.png", xml_of("b.png", object_of("cat", 1, 1, 40, 30)))
    content, _ = read(path, form=VOCFormat(first_pixel=1))
    assert content.annotations["bbox"][2].tolist() == [0, 0, 40, 30]
    with pytest.raises(UsageError, match=r"first_pixel must be in \[0, 1\], not 2"):
        VOCFormat(first_pixel=2)


def test_read__difficult_objects_are_crowds(tmp_path):
    path = write_voc(tmp_path)
    marks = ["<difficult>1</difficult>", "<difficult>0</difficult>", "", "<difficult>Unspecified</difficult>"]
    objects = [object_of("dog", 5 + n, 5, 15 + n, 15, mark) for n, mark in enumerate(marks)]
    write_xml(
        tmp_path, "a.png", xml_of("a.png", "".join(objects) + object_of("cat", 1, 2, 9, 9, "<difficult>2</difficult>"))
    )
    content, problems = read(path)
    assert content.annotations["iscrowd"].tolist() == [1, 0, 0, 0, 0, 0]
    (problem,) = problems.found
    assert problem.what == "values of difficult that are neither 0 nor 1"
    assert problem.examples == ("annotations/a.xml, line 20: 2",)


def test_read__names_can_be_given_and_set_the_order(tmp_path):
    path = write_voc(tmp_path)
    (path / "classes.txt").write_text("dog\ncat\nbird\n")
    content, _ = read(path)
    assert content.categories[0] == {"id": 1, "name": "dog"}
    content, problems = read(path, form=VOCFormat(names=["dog", "cats"]))
    assert content.annotations["category_id"].tolist() == [1]
    (problem,) = problems.found
    assert (problem.what, problem.count) == ("objects of unknown classes", 2)
    assert problem.examples[0] == "annotations/a.xml, line 8: cat Did you mean 'cats'?"


@pytest.mark.parametrize(
    ("entry", "detail"),
    [
        (object_of("", 1, 2, 3, 4), "no name"),
        ("<object><name>dog</name></object>", "xmin is missing, ymin is missing"),
        (object_of("dog", 1, "x", 3, 4), "xmin is 1, ymin is x"),
        (object_of("dog", 1, 2, 3, "nan"), "ymax is nan"),
    ],
)
def test_read__faulty_objects_are_reported_with_file_and_line(tmp_path, entry, detail):
    path = write_voc(tmp_path)
    write_xml(tmp_path, "a.png", xml_of("a.png", object_of("dog", 5, 5, 15, 15) + entry))
    content, problems = read(path)
    (problem,) = problems.found
    assert (problem.what, problem.repair) == ("objects without a name or four numbers", "dropped")
    assert problem.examples[0].startswith("annotations/a.xml, line 8: ")
    assert detail in problem.examples[0]
    assert len(content.annotations) == 2


def test_read__an_object_with_several_boxes_is_reported(tmp_path):
    path = write_voc(tmp_path)
    first, second = object_of("dog", 5, 5, 15, 15), object_of("dog", 20, 3, 28, 15)
    box = second[second.index("<bndbox>") : second.index("</object>")]
    write_xml(tmp_path, "a.png", xml_of("a.png", first.replace("</object>", f"{box}</object>")))
    content, problems = read(path)
    (problem,) = problems.found
    assert (problem.what, problem.repair) == ("objects with several boxes", "their first box is used")
    assert problem.examples == ("annotations/a.xml, line 4: dog has 2 bndbox elements",)
    assert content.annotations["bbox"].tolist()[0] == [5, 5, 10, 10]


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("<annotation>\n<object></annotation>", "a.xml, line 2, column 11: mismatched tag"),
        ("", "a.xml, line 1, column 1: no element found"),
        ("<html></html>", "a.xml, line 1: the root element is html, not annotation"),
    ],
)
def test_read__files_that_are_no_voc_files(tmp_path, text, detail):
    path = write_voc(tmp_path)
    write_xml(tmp_path, "a.png", text)
    content, problems = read(path)
    assert problems.found[0].what == "files that are not Pascal VOC's XML"
    assert problems.found[0].examples == (f"annotations/{detail}",)
    assert len(content.images) == 2


def test_read__the_image_is_that_of_filename_or_else_of_the_xml_files_name(tmp_path):
    path = write_voc(tmp_path)
    write_xml(tmp_path, "a.png", xml_of("old/a.JPG", object_of("dog", 5, 5, 15, 15)))
    write_xml(tmp_path, "c.png", xml_of("b.png", ""))
    content, problems = read(path)
    assert [entry["file_name"] for entry in content.images] == ["a.png", "b.png", "b.png"]
    reported = {problem.what: problem.examples for problem in problems.found}
    assert reported["names of images that do not exist"] == ("annotations/a.xml: filename is old/a.JPG, used a.png",)
    assert reported["XML files that name another image"] == ("annotations/c.xml: filename is b.png",)


def test_read__images_without_an_xml_file_are_reported(tmp_path):
    path = write_voc(tmp_path)
    write_images(tmp_path / "images", ["d.png", "a.jpg"])
    _, problems = read(path)
    without, stems = problems.found
    assert (without.what, without.examples, without.repair) == ("images without an XML file", ("d.png",), "not used")
    assert stems.examples == ("a.jpg, a.png",)


def test_read__a_list_of_the_voc_challenge(tmp_path):
    write_voc(tmp_path)
    (tmp_path / "annotations").rename(tmp_path / "Annotations")
    (tmp_path / "images").rename(tmp_path / "JPEGImages")
    path = tmp_path / "ImageSets" / "Main" / "train.txt"
    path.parent.mkdir(parents=True)
    path.write_text("b\na  1\nnone\n")
    content, problems = read(path)
    assert [entry["file_name"] for entry in content.images] == ["a.png", "b.png"]
    assert problems.found[0].examples == (f"none: looked for {tmp_path}/Annotations/none.xml",)
    data = module(tmp_path, train_annotations="ImageSets/Main/train.txt")
    data.setup("fit")
    assert data.data["train"].folder == tmp_path / "JPEGImages"


def test_read__weights(tmp_path):
    path = write_voc(tmp_path)
    objects = object_of("dog", 5, 5, 15, 15, "<hard>2.5</hard>") + object_of("cat", 1, 1, 9, 9)
    write_xml(tmp_path, "a.png", xml_of("a.png", objects))
    content, _ = read(path, weight_key="hard")
    assert content.annotations["weight"].tolist() == [2.5, 1, 1]


def test_check__content_is_checked_as_in_every_format(tmp_path):
    write_voc(tmp_path)
    objects = object_of("dog", 5, 5, 15, 15) * 2 + object_of("cat", 30, 5, 50, 15) + object_of("cat", 9, 9, 9, 12)
    write_xml(tmp_path, "a.png", xml_of("a.png", objects, (80, 60)))
    write_xml(tmp_path, "z.png", xml_of("z.png", object_of("cat", 1, 1, 9, 9)))
    text = check(module(tmp_path)).text
    assert (
        "boxes of zero or negative size: 1 (dropped)\n      annotations/a.xml, line 16 (a.png): box [9, 9, 0, 3]"
        in text
    )
    assert "boxes partly outside their image: 1 (clipped)\n      annotations/a.xml, line 12" in text
    assert "annotations given more than once (same image, category and box): 1" in text
    assert "as annotations/a.xml, line 4" in text
    assert "image 1 (a.png): the XML says 80 x 60, the file 40 x 30" in text
    assert "missing image files: 1 (dropped)" in text
    assert "filename must be relative to the image folder" in text


def test_data_module__splits_agree_on_the_labels_of_names(tmp_path):
    for split, name in (("train", "dog"), ("val", "cat")):
        write_images(tmp_path / split / "images", ["a.png"])
        write_xml(tmp_path / split, "a.png", xml_of("a.png", object_of(name, 5, 5, 15, 15)))
    data = CocoDataModule(
        tmp_path, train_annotations="train/annotations", val_annotations="val/annotations", num_workers=0
    )
    with pytest.warns(UserWarning, match="classes with boxes in val and none in train"):
        data.setup("fit")
    assert data.categories == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert data.data["train"].category_ids.tolist() == [2]
    assert data.data["val"].category_ids.tolist() == [1]
    assert data.data["train"].categories == [{"id": 2, "name": "dog"}]


def test_data_module__can_be_pickled_after_its_files_were_read(tmp_path):
    write_voc(tmp_path)
    data = module(tmp_path)
    assert data.num_classes == 2
    again = pickle.loads(pickle.dumps(data))
    again.setup("fit")
    assert len(again.data["train"].boxes) == 3


def test_read__a_single_file_is_told_to_be_given_as_its_folder(tmp_path):
    write_voc(tmp_path)
    with pytest.raises(DataError, match=r"a single XML file: give its folder, .*/annotations"):
        module(tmp_path, train_annotations="annotations/a.xml").setup("fit")


def test_read__an_empty_folder_is_an_error(tmp_path):
    (tmp_path / "annotations").mkdir()
    with pytest.raises(DataError, match="no XML file"):
        module(tmp_path, format="voc").setup("fit")


SOURCE = "<source><database>Unknown</database></source>"


@pytest.mark.parametrize(
    ("old", "new"),
    [("<filename>", "<!-- made by hand --><filename>"), ("<annotation>", '<annotation verified="yes">'),
     ("<bndbox>", "<attributes><attribute><name>x</name></attribute></attributes><bndbox>"),
     ("<name>dog", "<name>d&#111;g"), ("<object>", "<object id='3'>"), ("</size>\n", f"</size>{SOURCE}")],
)  # fmt: skip
def test_parse_voc__files_of_the_usual_form_and_others_are_read_alike(tmp_path, old, new):
    objects = object_of("dog", 5, 5, 15, 15) + object_of("cat", 1.5, 2, 9, 9, "<truncated>1</truncated>")
    usual = xml_of("a.png", objects)
    assert _regular(usual.encode()) == parse_voc(str(write_xml(tmp_path, "a.png", usual)))
    assert parse_voc(str(write_xml(tmp_path, "b.png", usual.replace(old, new)))) == _regular(usual.encode())
    assert (_regular(usual.replace(old, new).encode()) is None) == ("source" not in new)


@pytest.mark.parametrize("other", ["", "<!-- of another form, for the slower parser -->"])
@pytest.mark.parametrize(("old", "new"), [("object>", "Object>"), ("object>", "OBJECT>"), ("", "")])
def test_parse_voc__objects_in_other_case_or_inside_another_element_are_not_lost(tmp_path, old, new, other):
    entry = object_of("dog", 5, 5, 15, 15)
    changed = entry.replace(old, new) if old else f"<objects>\n{entry}</objects>\n"
    path = tmp_path / "a.xml"
    path.write_text(xml_of("a.png", entry + changed + other))
    content = parse_voc(str(path))
    assert [entry.corners for entry in content.objects] == [("5", "5", "15", "15")] * 2
    start = changed.lower().partition("<object>")[0].count("\n")
    assert line_of_object(path, 2) == line_of_object(path, 1) + entry.count("\n") + start


def test_recognises__folders_train_and_val_of_xml_files_are_no_export_without_images(tmp_path):
    folder = write_voc(tmp_path)
    for split in ("train", "valid"):
        shutil.copytree(folder, tmp_path / "all" / split)
    assert not RoboflowFormat().recognises(tmp_path / "all")
    assert VOCFormat().recognises(tmp_path / "all")


def test_parse_voc__corners_in_another_order_and_names_in_other_scripts(tmp_path):
    mixed = "<bndbox><xmin>1</xmin><xmax>3</xmax><ymin>2</ymin><ymax>4</ymax></bndbox>"
    text = f'<?xml version="1.0" encoding="latin-1"?><annotation><object><name>Bär</name>{mixed}</object></annotation>'
    path = tmp_path / "a.xml"
    path.write_bytes(text.encode("latin-1"))
    (entry,) = parse_voc(str(path)).objects
    assert (entry.name, entry.corners) == ("Bär", ("1", "2", "3", "4"))


def test_recognises__folders_of_xml_files(tmp_path):
    write_voc(tmp_path)
    assert VOCFormat().recognises(tmp_path / "annotations")
    assert not VOCFormat().recognises(tmp_path / "images")
    assert not VOCFormat().recognises(tmp_path)  # a data set with its images in another folder


@pytest.mark.parametrize("shape", ["robndbox", "polygon"])
def test_read__objects_of_another_shape_are_dropped_with_the_cure(tmp_path, shape):
    path = write_voc(tmp_path)
    other = f"<object><name>dog</name><{shape}><x1>1</x1><y1>2</y1></{shape}></object>"
    write_xml(tmp_path, "a.png", xml_of("a.png", other + object_of("cat", 1, 2, 9, 9)))
    _, problems = read(path)
    (problem,) = problems.found
    assert problem.what == "objects without a name or four numbers"
    assert problem.examples[0].endswith(f"ymax is missing; it has {shape}")
    assert "write the upright box around each as its bndbox" in problem.cure


def test_read__objects_without_a_box_or_a_name_have_a_cure_without_shapes(tmp_path):
    path = write_voc(tmp_path)
    write_xml(tmp_path, "a.png", xml_of("a.png", "<object><name>dog</name></object>"))
    (problem,) = read(path)[1].found
    assert problem.cure.endswith("xmin, ymin, xmax and ymax, which are numbers of pixels")
