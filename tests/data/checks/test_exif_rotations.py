"""Photos with an EXIF orientation: were their boxes drawn before or after the rotation?"""

import pytest
from PIL import Image

from lit_dense.data.checks.annotation_file import check_split
from lit_dense.data.checks.exif_rotations import ExifRotations
from lit_dense.data.formats.coco import read_coco
from lit_dense.data.image_files import Header
from lit_dense.data.problems import KEPT, Problems
from tests.builders.coco_files import box_entry, image_entry, write_json

UNCLEAR = "images whose sizes do not show whether their boxes were drawn before the EXIF rotation"


@pytest.fixture
def check(tmp_path):
    """Check images that are given as EXIF orientation, stored size and stated size; each has one box."""

    def run(*photos):
        images, boxes = [], []
        for number, (orientation, stored, stated) in enumerate(photos, start=1):
            exif = Image.Exif()
            exif[0x0112] = orientation
            (tmp_path / "images").mkdir(exist_ok=True)
            Image.new("RGB", stored).save(tmp_path / "images" / f"{number}.png", exif=exif)
            images.append(image_entry(number, *(stated or ())))
            if stated is None:
                del images[-1]["width"], images[-1]["height"]
            boxes.append(box_entry(number, number, (20, 1, 10, 20)))
        problems = Problems()
        content = read_coco(write_json(tmp_path / "a.json", images, boxes), problems)
        return check_split(content, tmp_path / "images", problems), problems

    return run


WIDE, TALL, SQUARE = (40, 30), (30, 40), (40, 40)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_check_split__an_undecided_photo_is_read_as_the_others_which_were_annotated_before(check, orientation):
    size = WIDE if orientation < 5 else SQUARE
    data, problems = check((6, WIDE, WIDE), (orientation, size, size), (1, SQUARE, SQUARE))
    assert data.upright.tolist() == [False, False, True]
    assert data.sizes.tolist() == [[30, 40], [size[1], size[0]], [40, 40]]
    told = {problem.what: problem for problem in problems.found}
    assert told[UNCLEAR].examples == ("image 2 (2.png)",)
    assert told[UNCLEAR].repair == "read without the rotation, as the other images"
    assert "save the images without the EXIF orientation" in told[UNCLEAR].cure
    assert "without the EXIF orientation" in told["sizes of images before their EXIF rotation"].cure


def test_check_split__a_photo_without_a_stated_size_is_read_as_the_others(check):
    data, _ = check((6, WIDE, WIDE), (8, WIDE, None))
    assert data.upright.tolist() == [False, False]
    assert data.sizes.tolist() == [[30, 40], [30, 40]]
    assert data.boxes[1].tolist() == [20, 1, 30, 21]


def test_check_split__photos_that_were_annotated_after_the_rotation_leave_no_doubt(check):
    data, problems = check((6, WIDE, TALL), (3, WIDE, WIDE), (6, SQUARE, SQUARE))
    assert data.upright.all()
    assert not problems.found
    assert not problems.hints


def test_check_split__photos_that_disagree_leave_the_undecided_ones_as_they_are(check):
    data, problems = check((6, WIDE, TALL), (6, WIDE, WIDE), (3, WIDE, WIDE))
    assert data.upright.tolist() == [True, False, True]
    (problem,) = [problem for problem in problems.found if problem.what == UNCLEAR]
    assert (problem.repair, problem.examples) == (KEPT, ("image 3 (3.png)",))
    assert "the sizes of the other images disagree" in problem.cure


def test_check_split__undecided_photos_alone_are_a_hint(check):
    data, problems = check((3, WIDE, WIDE), (6, SQUARE, SQUARE), (1, WIDE, WIDE))
    assert data.upright.all()
    assert not problems.found
    (hint,) = problems.hints
    assert (hint.what, hint.count) == (UNCLEAR, 2)
    assert "look at one with its boxes" in hint.cure


def test_exif_rotations__a_size_that_is_neither_shows_nothing():
    rotations = ExifRotations()
    rotations.add(1, Header(30, 40, True, turned=True), (300, 400))
    rotations.add(2, Header(30, 40, False, turned=True), (40, 30))
    assert rotations.verdict == "unknown"
    assert not rotations.undecided
