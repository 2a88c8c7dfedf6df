import csv

import pytest

from lit_dense import CocoDataModule
from lit_dense.data import DataError, check
from lit_dense.data.formats.base import Request
from lit_dense.data.formats.csv_table import CSVFormat
from lit_dense.data.problems import Problems
from tests.builders.format_files import write_csv, write_images

BOXES = [[5, 5, 10, 10], [20, 3, 8, 12], [0, 0, 40, 30]]


def read(path, form=None, **request):
    problems = Problems()
    request = {"images": path.parent / "images"} | request
    return (form or CSVFormat()).read(Request(path, **request), problems), problems


def module(root, **options):
    given = {"train_annotations": "train.csv", "train_images": "images", "num_workers": 0}
    return CocoDataModule(root, **given | options)


def test_read__deepforests_columns(tmp_path):
    content, problems = read(write_csv(tmp_path))
    assert not problems.found
    assert [entry["file_name"] for entry in content.images] == ["a.png", "b.png", "c.png"]
    assert content.annotations["bbox"].tolist() == BOXES
    assert [content.categories[number - 1]["name"] for number in content.annotations["category_id"]] == [
        "dog",
        "cat",
        "cat",
    ]
    assert content.place(2) == "train.csv, line 4"


@pytest.mark.parametrize(
    "text",
    [
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,40,30,dog,5,5,15,15\na.png,40,30,cat,20,3,28,15\n"
        "b.png,40,30,cat,0,0,40,30\n",
        "image_id;bbox;label\na;[5, 5, 10, 10];dog\na;[20.0, 3.0, 8.0, 12.0];cat\nb;[0, 0, 40, 30];cat\n",
        'image_id,width,height,bbox,class\na,40,30,"[5, 5, 10, 10]",dog\na,40,30,"[20, 3, 8, 12]",cat\n'
        'b,40,30,"[0, 0, 40, 30]",cat\n',
        "Label\tImage\tx\ty\tw\th\ndog\ta.png\t5\t5\t10\t10\ncat\ta.png\t20\t3\t8\t12\ncat\tb.png\t0\t0\t40\t30\n",
        "image,x_min,y_min,x_max,y_max,class_name,class_id\na.png,5,5,15,15,dog,0\na.png,20,3,28,15,cat,1\n"
        "b.png,0,0,40,30,cat,1\n",
        "x,y,width,height,image_name,category\n5,5,10,10,a.png,dog\n20,3,8,12,a.png,cat\n0,0,40,30,b.png,cat\n",
        "\ufeffimage_path,xmin,ymin,xmax,ymax,label\r\na.png,5,5,15,15,dog\r\n\r\na.png,20,3,28,15,cat\r\nb.png,0,0,40,30,cat",
    ],
)  # fmt: skip
def test_read__columns_and_separators_of_others(tmp_path, text):
    content, problems = read(write_csv(tmp_path, text=text))
    assert not problems.found
    assert content.annotations["bbox"].tolist() == BOXES
    assert [entry["file_name"] for entry in content.images] == ["a.png", "b.png"]
    assert [category["name"] for category in content.categories] == ["cat", "dog"]
    assert content.annotations["category_id"].tolist() == [2, 1, 1]


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("image_path,xmin,ymin,xmax,ymax,lable", r"no column of the class: .*, lable.*'lable': Did you mean 'label'"),
        ("image_path,xmn,ymin,xmax,ymax,label", r"no column of the box.*'xmn': Did you mean 'xmin'"),
        ("a.png,5,5,15,15,dog", r"no column of the image and the box and the class.*first line looks like a box"),
        ("", "no column of the image and the box and the class: the columns are none"),
    ],
)  # fmt: skip
def test_read__mistakes_of_the_header_are_explained(tmp_path, header, told):
    write_csv(tmp_path, text=f"{header}\na.png,5,5,15,15,dog\n")
    with pytest.raises(DataError, match=told):
        module(tmp_path).setup("fit")


@pytest.mark.parametrize(
    ("row", "what", "detail"),
    [
        ("a.png,5,5,15,15", "rows with a wrong number of columns", "line 3: 5 columns, the header has 6"),
        ("a.png;5;5;15;15;dog", "rows with a wrong number of columns", "line 3: 1 columns"),
        ("a.png,5,x,15,15,dog", "boxes that are not four numbers", "line 3: 5, x, 15, 15"),
        ("a.png,5,,15,15,dog", "boxes that are not four numbers", "line 3: 5, , 15, 15"),
        ('a.png,"5,5",5,15,15,dog', "boxes that are not four numbers", "line 3: 5,5, 5, 15, 15"),
        ("a.png,5,5,15,15,", "rows without a class", "line 3: a.png"),
    ],
)
def test_read__faulty_rows_are_reported_with_their_line(tmp_path, row, what, detail):
    text = f"image_path,xmin,ymin,xmax,ymax,label\na.png,5,5,15,15,dog\n{row}\nb.png,0,0,40,30,cat\n"
    content, problems = read(write_csv(tmp_path, text=text))
    (problem,) = problems.found
    assert (problem.what, problem.repair, problem.count) == (what, "dropped", 1)
    assert problem.examples[0].startswith(detail)
    assert len(content.annotations) == 2
    if ";" in row:
        assert "the header is separated by commas: these rows seem to use semicolons" in problem.cure


def test_read__rows_without_coordinates_and_with_zeros_are_images_without_boxes(tmp_path):
    text = "image_path,xmin,ymin,xmax,ymax,label\na.png,0,0,0,0,dog\nb.png,nan,nan,nan,nan,\nc.png,5,5,15,15,dog\n"
    content, problems = read(write_csv(tmp_path, text=text))
    assert not problems.found
    assert len(content.images) == 3
    assert content.annotations["image_id"].tolist() == [3]


def test_read__names_of_images_are_found_and_corrections_reported(tmp_path):
    rows = ["a.PNG", "C:\\data\\images\\b.png", "images/c.png", "none.png"]
    text = "image_path,xmin,ymin,xmax,ymax,label\n" + "".join(f"{name},5,5,15,15,dog\n" for name in rows)
    content, problems = read(write_csv(tmp_path, text=text))
    assert [entry["file_name"] for entry in content.images] == ["a.png", "b.png", "c.png", "none.png"]
    assert [problem.what for problem in problems.found] == [
        "names of images with another case of the suffix",
        "names of images with other folders",
    ]
    text = check(module(tmp_path)).text
    assert "missing image files: 1 (dropped)" in text
    assert "the image's name must be relative to the image folder" in text


HEADER = "image_path,xmin,ymin,xmax,ymax,label\n"


@pytest.mark.parametrize(
    ("text", "what", "detail", "cure"),
    [
        (
            HEADER + 'a.png,5,5,15,15,dog\n"a.png,5,5,15,15,dog\nb.png,5,5,15,15,dog\n',
            "rows of several lines, with a wrong number of columns",
            "lines 3 to 4: 1 columns",
            "close all quotation marks",
        ),
        (HEADER + "a.png,5,5,15,15,dog\n,5,5,15,15,dog\n", "rows without an image", "line 3", ""),
        (HEADER + "a.png,5,5,15,15,dog\nb.png,5,5,15,15,nan\n", "rows without a class", "line 3: b.png", ""),
        (
            "image_path,label,xmin,ymin,xmax,ymax,label\na.png,dog,5,5,15,15,cat\n",
            "names of several columns",
            "label",
            "",
        ),
    ],
)
def test_read__what_is_dropped_is_told(tmp_path, text, what, detail, cure):
    content, problems = read(write_csv(tmp_path, text=text))
    (problem,) = problems.found
    assert (problem.what, problem.count) == (what, 1)
    assert problem.examples[0].startswith(detail)
    assert cure in problem.cure
    assert len(content.annotations) == 1
    assert content.categories == [{"id": 1, "name": "dog"}]


def test_read__the_line_of_a_row_is_its_first(tmp_path):
    text = 'image_path,note,xmin,ymin,xmax,ymax,label\na.png,"1\n2",5,5,15,15,dog\na.png,,5,x,15,15,dog\n'
    content, problems = read(write_csv(tmp_path, text=text))
    assert content.place(0) == "train.csv, line 2"
    assert problems.found[0].examples[0].startswith("line 4")


def test_read__decimal_commas_between_semicolons(tmp_path):
    text = "image_path;xmin;ymin;xmax;ymax;label\na.png;5,5;5;15,25;15;dog\na.png;1;2;3;4;dog\n"
    content, problems = read(write_csv(tmp_path, text=text))
    assert content.annotations["bbox"].tolist() == [[5.5, 5, 9.75, 10], [1, 2, 2, 2]]
    (problem,) = problems.found
    assert (problem.what, problem.repair, problem.count) == ("boxes with decimal commas", "read", 1)
    assert problem.examples == ("line 2: '5,5', '5', '15,25', '15'",)


def test_read__other_separators_and_encodings_are_named(tmp_path):
    _, problems = read(write_csv(tmp_path, text=HEADER.replace(",", "|")))
    assert "columns are separated by commas, semicolons or tabs" in problems.found[0].cure
    _, problems = read(write_csv(tmp_path, text=f"\n{HEADER}"))
    assert "without empty lines before it" in problems.found[0].cure
    path = write_csv(tmp_path)
    path.write_bytes(f"{HEADER}a.png,5,5,15,15,\u00e4\n".encode("latin-1"))
    _, problems = read(path)
    assert problems.found[0].what.endswith("in line 2")
    assert "UTF-8" in problems.found[0].cure


def test_read__class_names_in_another_encoding_are_an_error(tmp_path):
    path = write_csv(tmp_path)
    (tmp_path / "classes.txt").write_bytes("dog\nFu\u00dfg\u00e4nger\n".encode("latin-1"))
    _, problems = read(path)
    assert (problems.found[0].path, problems.found[0].repair) == (tmp_path / "classes.txt", "")
    assert problems.found[0].what.endswith("in line 2")


def test_read__classes_txt_sets_the_order_and_one_name_replaces_the_column(tmp_path):
    path = write_csv(tmp_path)
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    assert read(path)[0].annotations["category_id"].tolist() == [1, 2, 2]
    (tmp_path / "classes.txt").unlink()
    write_csv(tmp_path, text="image_id,bbox\na,[5 5 10 10]\n")
    content, problems = read(path, form=CSVFormat(names=["wheat"]))
    assert not problems.found
    assert content.categories == [{"id": 1, "name": "wheat"}]
    _, problems = read(write_csv(tmp_path), form=CSVFormat(names=["dogs", "cat"]))
    assert problems.found[0].examples == ("line 2: dog Did you mean 'dogs'?",)


def test_read__sizes_and_weights(tmp_path):
    rows = [
        "filename,width,height,class,xmin,ymin,xmax,ymax,hard",
        "a.png,80,60,dog,5,5,15,15,2",
        "a.png,80,60,cat,5,5,15,15,",
    ]
    write_csv(tmp_path, text="\n".join(rows))
    content, _ = read(tmp_path / "train.csv", weight_key="hard")
    assert content.annotations["weight"][0] == 2
    report = check(module(tmp_path, weight_key="hard")).text
    assert "the CSV says 80 x 60, the file 40 x 30" in report
    assert "hard is not a number" in report
    with pytest.raises(DataError, match=r"no column 'hrad' of weights Did you mean 'hard'\?"):
        module(tmp_path, weight_key="hrad").setup("fit")


def test_read__another_size_of_the_same_image_is_reported(tmp_path):
    header = "image_path,width,height,xmin,ymin,xmax,ymax,label\n"
    rows = ["a.png,,,5,5,15,15,dog", "a.png,40,30,5,5,15,15,dog", "a.png,80,60,40,6,56,30,cat", "a.png,,,0,0,9,9,cat"]
    content, problems = read(write_csv(tmp_path, text=header + "\n".join(rows)))
    (problem,) = problems.found
    assert (problem.what, problem.count) == ("images with several sizes", 1)
    assert problem.examples == ("line 4: a.png is 80 x 60, and 40 x 30 before",)
    assert (content.images[0]["width"], content.images[0]["height"]) == (40, 30)
    assert len(content.annotations) == 4
    rows[2] = rows[2].replace("a.png", "images/a.png")  # another spelling of the same image
    _, problems = read(write_csv(tmp_path, text=header + "\n".join(rows)))
    assert "images with several sizes" in [problem.what for problem in problems.found]


def test_check__content_is_checked_as_in_every_format(tmp_path):
    rows = ["a.png,5,5,15,15,dog", "a.png,5,5,15,15,dog", "a.png,30,5,50,15,cat", "a.png,9,9,9,12,cat"]
    write_csv(tmp_path, text="\n".join(["image_path,xmin,ymin,xmax,ymax,label", *rows]))
    text = check(module(tmp_path)).text
    assert "boxes of zero or negative size: 1 (dropped)\n      train.csv, line 5 (a.png): box [9, 9, 0, 3]" in text
    assert "boxes partly outside their image: 1 (clipped)\n      train.csv, line 4" in text
    assert "train.csv, line 3 (a.png): box [5, 5, 10, 10] of category 2, as train.csv, line 2" in text


def test_read__a_quotation_mark_that_is_not_closed_is_an_error(tmp_path):
    header = "image_path,xmin,ymin,xmax,ymax,label\n"
    write_csv(tmp_path, text=header + '"a.png,5,5,15,15,dog\n' + "b.png,5,5,15,15,dog\n" * 10_000)
    with pytest.raises(DataError, match=r"they are one text of 200,020 char(.*\n)*.*close all quotation marks"):
        module(tmp_path).setup("fit")


BOX = "image_path,xmin,ymin,xmax,ymax,label"


@pytest.mark.parametrize("column", ["iscrowd", "difficult", "IsGroupOf"])
def test_read__marks_of_crowds_are_read(tmp_path, column):
    rows = [f"a.png,{x},5,{x + 9},15,dog,{mark}" for x, mark in enumerate(["1", "0", "true", "False", "", "nan", "-1"])]
    content, problems = read(write_csv(tmp_path, text="\n".join([f"{BOX},{column}", *rows])))
    assert content.annotations["iscrowd"].tolist() == [1, 0, 1, 0, 0, 0, 0]
    (problem,) = problems.found
    assert (problem.what, problem.repair) == ("marks of crowds that are neither 0 nor 1", "read as 0")
    assert problem.examples == ("line 8: -1",)


def test_read__a_mark_follows_its_box_if_rows_are_not_sorted(tmp_path):
    content, _ = read(write_csv(tmp_path, text=f"{BOX},iscrowd\nb.png,5,5,15,15,dog,1\na.png,1,1,9,9,dog,0\n"))
    assert content.annotations["image_id"].tolist() == [1, 2]
    assert content.annotations["iscrowd"].tolist() == [0, 1]


def test_read__a_column_of_weights_is_no_mark(tmp_path):
    path = write_csv(tmp_path, text=f"{BOX},difficult\na.png,5,5,15,15,dog,1\n")
    content, problems = read(path, weight_key="difficult")
    assert not problems.found
    assert (content.annotations["iscrowd"].tolist(), content.annotations["weight"].tolist()) == ([0], [1])


def test_data_module__ignore_key_names_a_column(tmp_path):
    write_csv(tmp_path, text=f"{BOX},Blurred\na.png,5,5,15,15,dog,1\na.png,1,1,9,9,dog,0\n")
    data = module(tmp_path, ignore_key="Blurred")
    data.setup("fit")
    assert data.data["train"].iscrowd.tolist() == [1, 0]
    with pytest.warns(UserWarning, match=r"no column 'blured' \(ignore_key\) Did you mean 'blurred'"):
        module(tmp_path, ignore_key="blured").setup("fit")
    write_csv(tmp_path, text=f"{BOX},blurred\na.png,5,5,15,15,dog,2\n")
    with pytest.raises(DataError, match=r"values of blurred \(ignore_key\) that are neither 0 nor 1(.*\n)*.*line 2: 2"):
        module(tmp_path, ignore_key="blurred").setup("fit")


def test_read__a_long_field_that_is_not_used(tmp_path):
    text = f"{BOX},rle\na.png,5,5,15,15,dog,{'1 2 ' * 40_000}\nb.png,5,5,15,15,cat,1 2\n"
    before = csv.field_size_limit()
    content, problems = read(write_csv(tmp_path, text=text))
    assert not problems.found
    assert len(content.annotations) == 2
    assert csv.field_size_limit() == before


def test_read__a_long_header_is_shortened(tmp_path):
    _, problems = read(write_csv(tmp_path, text="x" * 200_000 + "\n"))
    assert "no column of the image" in problems.found[0].what
    assert len(problems.found[0].what) < 700


def test_read__a_file_that_is_no_text(tmp_path):
    write_images(tmp_path / "images")
    (tmp_path / "train.csv").write_bytes(b"a,\xff\n")
    with pytest.raises(DataError, match="not UTF-8 text"):
        module(tmp_path).setup("fit")
    with pytest.raises(DataError, match=r"no such file. Did you mean 'train.csv'"):
        module(tmp_path, train_annotations="trian.csv").setup("fit")
