import json
import tracemalloc

import numpy as np
import pytest

from lit_dense.data.formats.coco import read_coco
from lit_dense.data.problems import Problems
from tests.builders.coco_files import box_entry, image_entry, write_json


def read(path, weight_key=None):
    problems = Problems()
    return read_coco(path, problems, weight_key), problems


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"images": [\n  {"id": 1},,\n]}', "not JSON: Expecting value in line 2, column 13"),
        (b'{"images": [', "line 1, column 13"),
        (b"", "line 1, column 1"),
        (b'{"a": "\xff"}', "not UTF-8 text"),
        (b"[1, 2]", "not a COCO file: its JSON is [1, 2]"),
        (b"[" * 100_000, "cannot be read"),
    ],
)
def test_read_coco__a_file_that_is_no_coco_file(tmp_path, content, told):
    (tmp_path / "a.json").write_bytes(content)
    found, problems = read(tmp_path / "a.json")
    assert found is None
    assert told in problems.report(strict=False)
    assert problems.errors(strict=False)


def test_read_coco__a_missing_file_and_a_folder(tmp_path):
    assert "no such file" in read(tmp_path / "a.json")[1].report(strict=False)
    assert "cannot be read" in read(tmp_path)[1].report(strict=False)


def test_read_coco__all_missing_keys_are_reported_with_those_that_exist(tmp_path):
    (tmp_path / "a.json").write_text('{"image": [], "categories": {"id": 1}}')
    report = read(tmp_path / "a.json")[1].report(strict=False)
    assert "! no list 'images': the keys are image, categories" in report
    assert "! no list 'annotations'" in report
    assert "! no list 'categories': it is {\"id\": 1}" in report


def test_read_coco__annotations_become_rows(tmp_path):
    path = write_json(
        tmp_path / "a.json",
        [image_entry(1, license=3)],
        [
            box_entry(5, 1, (1, 2, 3.5, 4), area=12, iscrowd=1, segmentation={"counts": [1], "size": [2, 2]}),
            box_entry(6.0, 1, iscrowd=None, area=None),  # whole numbers as floats, nulls: as some tools write them
        ],
    )
    content, problems = read(path)
    assert not problems.found
    assert content.images == [image_entry(1)]
    assert content.annotations["id"].tolist() == [5, 6]
    assert content.annotations["bbox"][0].tolist() == [1, 2, 3.5, 4]
    assert content.annotations["area"][0] == 12
    assert np.isnan(content.annotations["area"][1])
    assert content.annotations["iscrowd"].tolist() == [1, 0]


def test_read_coco__weights_are_read_where_a_key_names_them(tmp_path):
    scores = [2.5, 0, True, False, None, "3", [1], float("nan"), 10**400]
    entries = [box_entry(n, 1, hard=score) for n, score in enumerate(scores)]
    entries += [box_entry(20, 1), box_entry(21.0, 1, hard=4), box_entry(22, "x", hard=5), box_entry(23, 1, hard=6)]
    path = write_json(tmp_path / "a.json", [image_entry(1)], entries)
    content, _ = read(path, "hard")
    nothing = [np.nan] * 7
    np.testing.assert_array_equal(content.annotations["weight"], [2.5, 0, *nothing, 1, 4, 6])
    plain, _ = read(path)
    assert plain.weight_key is None
    assert "weight" not in plain.annotations.dtype.names
    for name in plain.annotations.dtype.names:
        np.testing.assert_array_equal(content.annotations[name], plain.annotations[name])


def test_read_coco__a_byte_order_mark_is_accepted(tmp_path):
    path = write_json(tmp_path / "a.json", [image_entry(1)])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert not read(path)[1].found


def test_read_coco__categories_are_sorted_and_checked(tmp_path):
    categories = [{"id": 9, "name": "b"}, {"id": 2, "name": 7}, {"id": 9, "name": "c"}, {"name": "d"}, "e"]
    categories += [{"id": 10, "name": " "}, {"id": 11, "name": ["f"]}, {"id": 12, "name": True}]
    content, problems = read(write_json(tmp_path / "a.json", categories=categories))
    assert content.categories == [{"id": 2, "name": "7"}, {"id": 9, "name": "b"}]
    report = problems.report(strict=False)
    assert "! category ids used more than once: 1\n      category id 9: b, c" in report
    assert "! categories without an integer id or a name: 5" in report
    _, problems = read(write_json(tmp_path / "a.json", categories=[{"id": 1, "name": ""}]))
    assert [problem.what for problem in problems.found] == ["categories without an integer id or a name"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"bbox": None}, "bbox is null, not four numbers"),
        ({"bbox": [1, 2, 3]}, "bbox is [1, 2, 3], not four numbers"),
        ({"bbox": [1, 2, "3", 4]}, 'bbox is [1, 2, "3", 4], not four numbers'),
        ({"bbox": "abcd"}, 'bbox is "abcd", not four numbers'),
        ({"bbox": [1, 2, 3, 10**400]}, "not four numbers"),
        ({"bbox": list(range(1000))}, "..., not four numbers"),
        ({"image_id": "x"}, 'image_id is "x", not an integer'),
        ({"image_id": 2**70}, "not an integer"),
        ({"category_id": 1.5}, "category_id is 1.5, not an integer"),
        ({"category_id": None, "bbox": {}}, "category_id is null, not an integer, bbox is {}, not four numbers"),
    ],
)
def test_read_coco__ill_typed_annotations_are_reported_and_dropped(tmp_path, change, told):
    path = write_json(tmp_path / "a.json", [image_entry(1)], [box_entry(4, 1), box_entry(5, 1) | change])
    content, problems = read(path)
    assert content.annotations["id"].tolist() == [4]
    report = problems.report(strict=False)
    assert "missing keys or values of a wrong type: 1 (dropped)\n      annotation 5 of image" in report
    assert told in report


@pytest.mark.parametrize("key", ["image_id", "category_id", "bbox"])
def test_read_coco__missing_keys_of_annotations(tmp_path, key):
    entry = box_entry(5, 1)
    del entry[key]
    content, problems = read(write_json(tmp_path / "a.json", [image_entry(1)], [entry]))
    assert len(content.annotations) == 0
    assert f"no {key}" in problems.report(strict=False)


def test_read_coco__things_that_are_no_annotations(tmp_path):
    path = write_json(tmp_path / "a.json", [image_entry(1)], [None, 3, [], {"id": 1}, box_entry(4, 1)])
    content, problems = read(path)
    assert content.annotations["id"].tolist() == [4]
    assert "missing keys or values of a wrong type: 4 (dropped)" in problems.report(strict=False)


def test_read_coco__annotations_elsewhere_in_the_file_are_none(tmp_path):
    path = write_json(tmp_path / "a.json", [image_entry(1)], [box_entry(4, 1)], info={"example": box_entry(1, 1)})
    assert read(path)[0].annotations["id"].tolist() == [4]


def test_read_coco__nan_survives_until_boxes_are_checked(tmp_path):
    path = write_json(tmp_path / "a.json", [image_entry(1)], [box_entry(4, 1, (float("nan"), 0, 1, float("inf")))])
    assert "NaN" in path.read_text()
    content, problems = read(path)
    assert not problems.found
    assert np.isnan(content.annotations["bbox"][0, 0])


def test_read_coco__masks_are_not_held_in_memory(tmp_path):
    masks = [box_entry(n, 1, segmentation=[[0.5 + n] * 200]) for n in range(2000)]
    path = write_json(tmp_path / "a.json", [image_entry(1)], masks)
    text = path.stat().st_size
    tracemalloc.start()
    read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * text + 1_000_000  # the bytes and their text; the masks as objects would take five times as much


def test_read_coco__any_json_is_an_error_and_no_crash(tmp_path):
    for value in (None, 3, "x", {"images": None}, {"images": [None, 3], "annotations": [], "categories": [None]}):
        (tmp_path / "a.json").write_text(json.dumps(value))
        assert read(tmp_path / "a.json")[1].errors(strict=False)


@pytest.mark.parametrize(
    ("value", "crowd"),
    [
        (True, 1), (False, 0), (1.0, 1), (0.0, 0), ("0", 0), ("1", 1), ("1.0", 1), ("false", 0), (" False ", 0),
        ("TRUE", 1), ("no", 0), (None, 0),
    ],
)  # fmt: skip
def test_read_coco__iscrowd_of_odd_types_is_read_where_it_is_plain_and_reported(tmp_path, value, crowd):
    entries = [box_entry(4, 1, iscrowd=value), box_entry(5, 1, iscrowd=1), box_entry(6.0, 1)]
    content, problems = read(write_json(tmp_path / "a.json", [image_entry(1)], entries))
    assert content.annotations["iscrowd"].tolist() == [crowd, 1, 0]
    told = [*problems.found, *problems.hints]
    if value is None:
        assert not told
        return
    assert told[0].examples == (f"annotation 4 of image 1: iscrowd is {json.dumps(value)}, read as {crowd}",)
    assert len(problems.found) == isinstance(value, str)
    assert not problems.errors(strict=False)


@pytest.mark.parametrize("value", [2, -1, 0.5, float("nan"), "", "maybe", "2", [], [0], {}, 10**30])
def test_read_coco__iscrowd_that_is_not_plain_is_an_error(tmp_path, value):
    entries = [box_entry(4, 1, iscrowd=value), box_entry(5, 1, bbox=(1, 2, 3, 4)) | {"id": None, "iscrowd": value}]
    _, problems = read(write_json(tmp_path / "a.json", [image_entry(1)], entries))
    (error,) = problems.errors(strict=False)
    assert error.what == "values of iscrowd that are neither 0 nor 1"
    assert error.examples[0] == f"annotation 4 of image 1: iscrowd is {json.dumps(value)}"
    assert error.examples[1].startswith("annotation without id of image 1: ")


def test_read_coco__only_annotations_of_the_list_are_checked_for_iscrowd(tmp_path):
    example = box_entry(1, 1, iscrowd="x")
    path = write_json(tmp_path / "a.json", [image_entry(1)], [box_entry(4, 1), example | {"bbox": None}], info=example)
    assert [problem.repair for problem in read(path)[1].found] == ["dropped"]


def test_read_coco__a_missing_file_is_named_with_the_nearest_one_or_the_missing_folder(tmp_path):
    (tmp_path / "train.json").write_text("{}")
    problems = Problems()
    read_coco(tmp_path / "trian.json", problems)
    read_coco(tmp_path / "other" / "train.json", problems)
    read_coco(tmp_path / "zzz.json", problems)
    assert [problem.what for problem in problems.found] == [
        "no such file. Did you mean 'train.json'?",
        f"no such file: there is no folder {tmp_path / 'other'}",
        "no such file",
    ]


@pytest.mark.parametrize(
    ("change", "cure"),
    [
        ({"image_id": "1"}, "write ids as numbers without quotation marks"),
        ({"bbox": ["5", "5", "9", "9"]}, "write bbox as a list of four numbers without quotation marks"),
        ({"bbox": [], "segmentation": [[1, 1, 9, 1, 9, 9]]}, "of polygons it is the smallest x, the smallest y"),
        ({"category_id": 1.5}, "each annotation needs image_id and category_id, which are integers, and bbox"),
    ],
)
def test_read_coco__annotations_that_cannot_be_read_have_a_cure(tmp_path, change, cure):
    _, problems = read(write_json(tmp_path / "a.json", [image_entry(1)], [box_entry(1, 1) | change]))
    assert cure in problems.found[0].cure
    assert ("of polygons" in problems.found[0].cure) == ("segmentation" in change)


@pytest.mark.parametrize("area", ["1200", "", [3], {}])
def test_read_coco__areas_that_are_not_numbers_are_reported(tmp_path, area):
    path = write_json(tmp_path / "a.json", [image_entry(1)], [box_entry(7, 1, area=area), box_entry(8, 1, area=None)])
    content, problems = read(path)
    assert np.isnan(content.annotations["area"]).all()
    (problem,) = problems.found
    assert (problem.what, problem.repair) == ("areas that are not numbers", "the area of the box is used")
    assert problem.examples == (f"annotation 7 of image 1: {json.dumps(area)}",)
