import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lit_dense.data.checks.annotation_file import check_split
from lit_dense.data.formats.coco import read_coco
from lit_dense.data.problems import Problems
from tests.builders.coco_files import box_entry, image_entry, write_image, write_json


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images 1 to 4 of 40 x 30 pixels."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(1, 5):
        write_image(folder / f"{number}.png", seed=number)
    return folder


@pytest.fixture
def check(folder, tmp_path):
    """Writes a file of these images and annotations and returns what is left, and the problems."""

    def run(images, annotations=(), weight_key=None, **more):
        problems = Problems()
        path = write_json(tmp_path / "a.json", images, annotations, **more)
        content = read_coco(path, problems, weight_key)
        return check_split(content, folder, problems), problems

    return run


def told(problems, strict=False):
    return problems.report(strict)


def test_check_split__good_data_has_no_problem(check):
    annotations = [
        box_entry(2, 3, (0, 0, 40, 30)),
        box_entry(1, 1, (5, 5, 10, 10), 7, area=50, iscrowd=1),
        box_entry(9, 3),
    ]
    data, problems = check([image_entry(3), image_entry(1), image_entry(2)], annotations)
    assert not problems.found
    assert data.image_ids.tolist() == [3, 1, 2]
    assert data.sizes.tolist() == [[30, 40]] * 3
    assert data.offsets.tolist() == [0, 2, 3, 3]
    assert data.annotation_ids.tolist() == [2, 9, 1]
    assert data.boxes.tolist() == [[0, 0, 40, 30], [5, 5, 15, 15], [5, 5, 15, 15]]
    assert data.category_ids.tolist() == [3, 3, 7]
    assert data.area.tolist() == [1200, 100, 50]  # of the box where the file has none
    assert data.iscrowd.tolist() == [False, False, True]
    assert data.boxes.dtype == data.area.dtype == np.float32


@pytest.mark.parametrize(
    ("bbox", "what", "detail"),
    [
        ((10, 20, 0, 5), "boxes of zero or negative size", "box [10, 20, 0, 5] has zero width"),
        ((10, 20, 3, -5), "boxes of zero or negative size", "has negative height"),
        ((0, 0, 0, 0), "boxes of zero or negative size", "has zero width and zero height"),
        ((float("nan"), 0, 1, 1), "boxes that are not finite", "box [nan, 0, 1, 1]"),
        ((0, 0, float("inf"), 1), "boxes that are not finite", "box [0, 0, inf, 1]"),
        ((1e308, 0, 1e308, 1), "boxes wholly outside their image", "the image is 40 x 30"),
        ((40, 5, 10, 10), "boxes wholly outside their image", "box [40, 5, 10, 10], the image is 40 x 30"),
        ((-10, 5, 10, 10), "boxes wholly outside their image", "the image is 40 x 30"),
        ((5, 31, 10, 10), "boxes wholly outside their image", "the image is 40 x 30"),
        ((39.9999999, 5, 10, 10), "boxes without size after clipping", "the image is 40 x 30"),
        ((20, 5, 1e-9, 10), "boxes without size after clipping", "the image is 40 x 30"),
    ],
)
def test_check_split__boxes_that_are_dropped(check, bbox, what, detail):
    data, problems = check([image_entry(1)], [box_entry(17, 1, bbox), box_entry(18, 1)])
    assert data.annotation_ids.tolist() == [18]
    assert len(problems.found) == 1
    assert f"- {what}: 1 (dropped)\n      annotation 17 of image 1 (1.png): " in told(problems)
    assert detail in told(problems)
    assert problems.errors(strict=True)
    assert not problems.errors(strict=False)


def test_check_split__boxes_that_are_clipped(check):
    annotations = [box_entry(1, 1, (-5, 20, 10, 20), area=150), box_entry(2, 1, (30, -2, 11, 4), area=1)]
    data, problems = check([image_entry(1)], annotations)
    assert data.boxes.tolist() == [[0, 20, 5, 30], [30, 0, 40, 2]]
    assert data.area.tolist() == [50, 1]
    assert "- boxes partly outside their image: 2 (clipped)" in told(problems)
    assert "box [-5, 20, 10, 20], the image is 40 x 30" in told(problems)


def test_check_split__a_hundredth_of_a_pixel_is_rounding(check):
    data, problems = check([image_entry(1)], [box_entry(1, 1, (30, 20, 10.01, 10.01))])
    assert not problems.found
    assert data.boxes.tolist() == [[30, 20, 40, 30]]


@pytest.mark.parametrize("area", [None, float("nan")])
def test_check_split__a_missing_area_is_that_of_the_box(check, area):
    data, problems = check([image_entry(1)], [box_entry(1, 1, area=area)])
    assert data.area.tolist() == [100]
    assert not problems.found


@pytest.mark.parametrize("area", [0, -5, float("inf"), 1e300, 1e-300, "large"])
def test_check_split__an_area_that_cannot_be_one_is_replaced_by_that_of_the_box_and_reported(check, area):
    data, problems = check([image_entry(1)], [box_entry(1, 1, area=area)])
    assert data.area.tolist() == [100]
    (problem,) = problems.found
    assert problem.what.startswith("areas that are not")
    assert problem.repair == "the area of the box is used"


@pytest.mark.parametrize(
    ("weight", "detail"),
    [
        (-0.5, "hard is -0.5"),
        (float("inf"), "hard is inf"),
        (1e39, "hard is 1e+39"),
        (float("nan"), "hard is not a number"),
        (None, "hard is not a number"),
        ("2", "hard is not a number"),
        (False, "hard is not a number"),
    ],
)
def test_check_split__a_weight_that_cannot_be_used_becomes_1(check, weight, detail):
    boxes = [(5, 5, 10, 10), (6, 5, 10, 10), (7, 5, 10, 10)]
    annotations = [
        box_entry(17, 1, boxes[0], hard=weight),
        box_entry(18, 1, boxes[1], hard=0),
        box_entry(19, 1, boxes[2]),
    ]
    data, problems = check([image_entry(1)], annotations, weight_key="hard")
    assert data.weight.tolist() == [1, 0, 1]
    what = "weights that are not numbers, negative or not finite: 1"
    assert f"- {what} (1 is used)\n      annotation 17 of image 1 (1.png): {detail}" in told(problems)
    assert len(problems.found) == 1
    assert problems.errors(strict=True)
    assert not problems.errors(strict=False)
    assert not check([image_entry(1)], annotations)[1].found


def test_check_split__weights_stay_with_their_boxes(check):
    annotations = [
        box_entry(1, 3, hard=2.5),
        box_entry(2, 1, hard=0.5),
        box_entry(3, 3, (0, 0, 0, 0), hard=-1),  # told for its box alone
        box_entry(4, 3, (9, 9, 9, 9), hard=4),
    ]
    data, problems = check([image_entry(1), image_entry(3)], annotations, weight_key="hard")
    assert data.annotation_ids.tolist() == [2, 1, 4]
    assert data.weight.tolist() == [0.5, 2.5, 4]
    assert data.weight.dtype == np.float32
    assert [problem.what for problem in problems.found] == ["boxes of zero or negative size"]


def test_check_split__annotations_of_unknown_images_and_categories_are_dropped(check):
    data, problems = check([image_entry(1)], [box_entry(1, 99), box_entry(2, 1, category_id=5), box_entry(3, 1)])
    assert data.annotation_ids.tolist() == [3]
    assert "annotations of images that are not listed: 1 (dropped)\n      annotation 1 of image 99" in told(problems)
    assert "annotations of unknown categories: 1 (dropped)" in told(problems)
    assert "annotation 2 of image 1 (1.png): category 5" in told(problems)


def test_check_split__annotation_ids_become_unique_and_no_box_is_lost(check):
    nameless = box_entry(0, 2)
    del nameless["id"]
    data, problems = check([image_entry(1), image_entry(2)], [box_entry(4, 1), box_entry(4, 2), nameless])
    assert len(data.boxes) == 3
    assert len(set(data.annotation_ids.tolist())) == 3
    assert data.annotation_ids[0] == 4
    assert "missing or used before: 2 (given new ids)" in told(problems)
    assert "annotation without id of image 2 (2.png)" in told(problems)


def test_check_split__image_ids_used_twice_are_an_error(check):
    _, problems = check([image_entry(1), image_entry(1, file_name="2.png")])
    assert "! image ids used more than once: 1\n      image 1: 1.png, 2.png" in told(problems)


@pytest.mark.parametrize("entry", [{"id": 1}, {"file_name": "1.png"}, {"id": "1", "file_name": "1.png"}, None, 5])
def test_check_split__images_without_id_or_file_name_are_dropped(check, entry):
    data, problems = check([entry, image_entry(2)], [box_entry(1, 1), box_entry(2, 2)])
    assert data.image_ids.tolist() == [2]
    assert "images without an integer id or a file name: 1 (dropped)" in told(problems)
    assert data.annotation_ids.tolist() == [2]


@pytest.mark.parametrize("name", ["../secret.png", "a/../../secret.png", "/etc/passwd", "..", "./../secret.png"])
def test_check_split__file_names_that_leave_the_folder_are_never_read(check, folder, monkeypatch, name):
    write_image(folder.parent / "secret.png")
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda path, *args: opened.append(str(path)) or real(path, *args))
    data, problems = check([image_entry(1), image_entry(2, file_name=name)], [box_entry(1, 2)])
    assert data.image_ids.tolist() == [1]
    assert opened == [f"{folder}/1.png"]
    assert f"file names that leave the image folder: 1 (dropped)\n      image 2 ({name})" in told(problems)


@pytest.mark.parametrize("name", ["sub/../1.png", "..1.png", "a..b.png", "1.png/.."])
def test_check_split__file_names_inside_the_folder_are_not_taken_for_others(check, name):
    _, problems = check([image_entry(1), image_entry(2, file_name=name)])
    assert "leave" not in told(problems)


def test_check_split__missing_and_unreadable_files_are_dropped_with_their_boxes(check, folder):
    (folder / "text.png").write_text("no image")
    (folder / "empty.png").touch()
    (folder / "folder.png").mkdir(exist_ok=True)
    names = ["gone.png", "text.png", "empty.png", "folder.png", "null\0byte.png"]
    images = [image_entry(1), *(image_entry(number, file_name=name) for number, name in enumerate(names, 11))]
    data, problems = check(images, [box_entry(1, 1), box_entry(2, 11), box_entry(3, 11), box_entry(4, 12)])
    assert data.image_ids.tolist() == [1]
    assert data.annotation_ids.tolist() == [1]
    assert "missing image files: 1 (dropped)\n      image 11 (gone.png); annotations dropped with it: 2" in told(
        problems
    )
    assert "unreadable image files: 4 (dropped)\n      image 12 (text.png): not an image that PIL can open" in told(
        problems
    )
    assert "not listed" not in told(problems)


def test_check_split__the_size_is_that_of_the_file(check):
    images = [image_entry(1, width=80, height=60), image_entry(2, width=None), image_entry(3, height=0)]
    del images[1]["height"]
    data, problems = check(images, [box_entry(1, 1, (30, 20, 20, 20))])
    assert data.sizes.tolist() == [[30, 40]] * 3
    assert data.boxes.tolist() == [[30, 20, 40, 30]]
    assert "image 1 (1.png): the JSON says 80 x 60, the file 40 x 30" in told(problems)
    assert "images without width and height: 2 (read from the image file)" in told(problems)


def test_check_split__boxes_on_an_image_before_its_exif_turn_stay_on_it(check, folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(folder / "turned.jpg", exif=exif)
    both = [image_entry(1, 30, 40, file_name="turned.jpg"), image_entry(2, 40, 30, file_name="turned.jpg")]
    data, problems = check(both, [box_entry(1, 1, (0, 0, 30, 40)), box_entry(2, 2, (0, 0, 40, 30))])
    assert data.upright.tolist() == [True, False]
    assert data.sizes.tolist() == [[40, 30], [30, 40]]
    assert data.boxes.tolist() == [[0, 0, 30, 40], [0, 0, 40, 30]]
    assert "before their EXIF rotation: 1 (read without the rotation)\n      image 2 (turned.jpg)" in told(problems)


def test_check_split__no_folder_no_images_or_none_left_are_errors(check, tmp_path, folder):
    problems = Problems()
    content = read_coco(write_json(tmp_path / "b.json", [image_entry(1)]), problems)
    assert check_split(content, tmp_path / "nowhere", problems) is None
    assert check_split(content, folder / "1.png", problems) is None
    assert "! no such image folder" in told(problems)
    assert "! the image folder is a file" in told(problems)
    for images, what in (([], "! no images"), ([image_entry(9)], "! no image that can be used")):
        data, problems = check(images)
        assert data is None
        assert what in told(problems)


def test_check_split__every_problem_of_a_bad_file_is_in_one_message(check, folder):
    (folder / "text.png").write_text("no image")
    images = [
        image_entry(1),
        image_entry(2, width=99),
        image_entry(3, width=None),
        image_entry(4),
        image_entry(4),
        {"id": 5},
        image_entry(6, file_name="../6.png"),
        image_entry(7, file_name="gone.png"),
        image_entry(8, file_name="text.png"),
    ]
    bad_boxes = [(0, 0, 0, 5), (float("nan"), 0, 1, 1), (50, 0, 5, 5), (39.9999999, 0, 5, 5), (-5, 0, 10, 10)]
    annotations = [
        *(box_entry(number, 1, bbox) for number, bbox in enumerate(bad_boxes)),
        box_entry(10, 1, category_id=55),
        box_entry(11, 77),
        box_entry(12, 1) | {"bbox": None},
        box_entry(13, 1),
        box_entry(13, 1),
    ]
    categories = [{"id": 3, "name": "cat"}, {"id": 3, "name": "dog"}, {"id": 4}]
    data, problems = check(images, annotations, categories=categories)
    report = told(problems)
    for what in (
        "! category ids used more than once: 1",
        "! categories without an integer id or a name: 1",
        "! image ids used more than once: 1",
        "- annotations with missing keys or values of a wrong type: 1 (dropped)",
        "- images without an integer id or a file name: 1 (dropped)",
        "- file names that leave the image folder: 1 (dropped)",
        "- missing image files: 1 (dropped)",
        "- unreadable image files: 1 (dropped)",
        "- sizes that differ from the image file: 1 (the image file's are used)",
        "- images without width and height: 1 (read from the image file)",
        "- annotations of images that are not listed: 1 (dropped)",
        "- annotations of unknown categories: 1 (dropped)",
        "- boxes that are not finite: 1 (dropped)",
        "- boxes of zero or negative size: 1 (dropped)",
        "- boxes wholly outside their image: 1 (dropped)",
        "- boxes without size after clipping: 1 (dropped)",
        "- boxes partly outside their image: 1 (clipped)",
        "- annotation ids that are missing or used before: 1 (given new ids)",
        "- annotations given more than once (same image, category and box): 1 (left as they are)",
    ):
        assert what in report
    assert len(problems.found) == 19
    assert len(data.boxes) == 3


numbers = st.floats(-60, 60) | st.sampled_from([0.0, 30.0, 40.0, float("nan"), float("inf"), -0.0, 1e300])
entries = st.fixed_dictionaries(
    {
        "id": st.integers(1, 4) | st.none(),
        "image_id": st.integers(1, 5) | st.text(max_size=2),
        "category_id": st.sampled_from([3, 7, 8, None]),
        "bbox": st.lists(numbers, min_size=4, max_size=4) | st.lists(numbers, max_size=5),
    },
    optional={"area": numbers | st.none(), "iscrowd": st.sampled_from([0, 1, None, True])},
)


@settings(max_examples=150)
@given(st.lists(entries, max_size=12))
def test_check_split__what_is_left_is_sound_and_what_is_lost_is_reported(folder, tmp_path_factory, annotations):
    path = write_json(folder / "property.json", [image_entry(n) for n in (2, 1, 3)], annotations)
    problems = Problems()
    data = check_split(read_coco(path, problems), folder, problems)
    x1, y1, x2, y2 = data.boxes.T
    assert ((x1 >= 0) & (x1 < x2) & (x2 <= 40) & (y1 >= 0) & (y1 < y2) & (y2 <= 30)).all()
    assert np.isin(data.category_ids, [3, 7]).all()
    assert np.isfinite(data.area).all()
    assert (data.area > 0).all()
    assert len(np.unique(data.annotation_ids)) == len(data.boxes)
    assert data.offsets[-1] == len(data.boxes)
    dropped = sum(problem.count for problem in problems.found if problem.repair == "dropped")
    assert len(data.boxes) + dropped == len(annotations)
    json.dumps([problem.examples for problem in problems.found])
