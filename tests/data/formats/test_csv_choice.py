import pytest

from tests.builders.format_files import write_csv
from tests.data.formats.test_csv_table import module, read

BOX = "xmin,ymin,xmax,ymax"


def text_of(header, rows):
    lines = [f"{row},{x},5,{x + 9},15" for x, row in enumerate(rows)]
    return "\n".join([f"{header},{BOX}", *lines, ""])


def test_choose_columns__names_are_read_instead_of_their_numbers(tmp_path):
    text = text_of("image,class,class_name", ["a.png,0,cat", "a.png,1,dog", "b.png,0,cat"])
    content, problems = read(write_csv(tmp_path, text=text))
    assert not problems.found
    assert [category["name"] for category in content.categories] == ["cat", "dog"]
    (tmp_path / "classes.txt").write_text("0\n1\n")
    content, problems = read(tmp_path / "train.csv")
    assert not problems.found
    assert sorted(content.annotations["category_id"].tolist()) == [1, 1, 2]


@pytest.mark.parametrize("header", ["image,category,label", "image,label,category"])
def test_choose_columns__classes_that_disagree_are_reported(tmp_path, header):
    rows = ["a.png,cat,1", "a.png,dog,1"] if header.endswith("label") else ["a.png,1,cat", "a.png,1,dog"]
    content, problems = read(write_csv(tmp_path, text=text_of(header, rows)))
    (problem,) = problems.found
    assert problem.what == "columns that can all be the class"
    assert problem.examples == ("label, read: 1 values: 1", "category, not read: 2 values: cat, dog")
    assert problem.cure == "remove or rename the columns that are not the class"
    assert len(content.annotations) == 2


def test_choose_columns__the_image_is_the_column_of_files(tmp_path):
    text = text_of("image,image_id,label", ["a.png,7,dog", "b.png,8,dog"])
    content, problems = read(write_csv(tmp_path, text=text))
    assert not problems.found
    assert [entry["file_name"] for entry in content.images] == ["a.png", "b.png"]


def test_choose_columns__images_that_disagree_are_reported(tmp_path):
    text = text_of("image,file_name,label", ["a.png,b.png,dog", "b.png,a.png,dog"])
    content, problems = read(write_csv(tmp_path, text=text))
    (problem,) = problems.found
    assert problem.what == "columns that can all be the image"
    assert problem.examples == ("file_name, read: 2 values: b.png, a.png", "image, not read: 2 values: a.png, b.png")
    assert content.annotations["bbox"][:, 0].tolist() == [1, 0]


def test_choose_columns__splits_in_one_file_are_reported_with_counts(tmp_path):
    rows = ["a.png,dog,train", "a.png,cat,train", "b.png,cat,val"]
    write_csv(tmp_path, text=text_of("image,label,split", rows))
    _, problems = read(tmp_path / "train.csv")
    (problem,) = problems.found
    assert problem.what == "splits in one file, all of whose rows are used"
    assert problem.examples == ("train: 2 rows", "val: 1 rows")
    with pytest.warns(UserWarning, match="write a file for each split"):
        module(tmp_path).setup("fit")
    for values in (["train"] * 3, ["north", "south", "south"]):
        rows = [f"a.png,dog,{value}" for value in values]
        assert not read(write_csv(tmp_path, text=text_of("image,label,set", rows)))[1].found
