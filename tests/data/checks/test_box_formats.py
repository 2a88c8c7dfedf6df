"""Boxes in other units than COCO's, on arrays alone: no picture is read."""

import numpy as np
import pytest

from lit_dense.data.formats.yolo import WORDING as YOLO
from lit_dense.data.problems import KEPT
from tests.builders.box_entries import check_entries
from tests.builders.problems import whats


@pytest.fixture
def boxes():
    """A hundred boxes within 640 x 480, as corners."""
    rng = np.random.default_rng(0)
    sides = rng.uniform(10, 200, (100, 2))
    start = rng.uniform(0, 1, (100, 2)) * ([640, 480] - sides)
    return np.concatenate([start, start + sides], axis=1)


def as_xywh(corners):
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def as_centres(corners):
    xywh = as_xywh(corners)
    return np.concatenate([xywh[:, :2] + xywh[:, 2:] / 2, xywh[:, 2:]], axis=1)


def test_box_formats__good_boxes_have_no_problem(boxes):
    assert not check_entries(as_xywh(boxes))[1].found


@pytest.mark.parametrize("boxes", [[(0, 0, 640, 480)], [(1, 1, 640, 480)], [(3, 2, 640, 470)], [(600, 400, 45, 90)]])
def test_box_formats__a_few_boxes_that_fill_or_pass_the_image_prove_nothing(boxes):
    assert not any("look like" in what for what in whats(check_entries(boxes)[1]))


def test_box_formats__boxes_slightly_over_the_border_are_not_taken_for_centres():
    start = np.random.default_rng(1).uniform(0, [625, 465], (300, 2))
    careless = np.concatenate([start, np.full((300, 2), 20.0)], axis=1)
    assert whats(check_entries(careless)[1]) == ["boxes partly outside their image"]


def test_box_formats__boxes_between_0_and_1_are_an_error(boxes):
    fractions = as_xywh(boxes) / [640, 480, 640, 480]
    _, problems = check_entries(fractions)
    (error,) = problems.errors(strict=False)
    assert error.what == "boxes between 0 and 1, which are smaller than a pixel"
    assert error.count == 100
    assert error.examples[0].startswith("annotation 0 of image 1 (1.png): box [0.")
    assert "multiply x and width by the image's width" in error.cure
    assert "x2" not in error.cure
    assert "middle" not in error.cure


def test_box_formats__fractions_of_other_formats_are_distinguished(boxes):
    scale = [640, 480, 640, 480]
    assert "the last two look like x2 and y2" in check_entries(boxes / scale)[1].found[0].cure
    assert "look like the middle of the box" in check_entries(as_centres(boxes) / scale)[1].found[0].cure


def test_box_formats__a_few_boxes_between_0_and_1_are_reported_and_kept(boxes):
    mixed = as_xywh(boxes)
    mixed[:7] /= [640, 480, 640, 480]
    data, problems = check_entries(mixed)
    (problem,) = problems.found
    assert (problem.what, problem.count) == ("boxes between 0 and 1, which are smaller than a pixel", 7)
    assert problem.repair == KEPT
    assert len(data.boxes) == 100


def test_box_formats__an_image_of_a_pixel_may_have_a_box_of_a_pixel():
    assert not check_entries([(0, 0, 1, 1)], size=(1, 1), num_images=1)[1].found


def test_box_formats__boxes_below_a_pixel_are_reported_and_kept():
    data, problems = check_entries([(5, 5, 0.5, 9), (5, 5, 9, 9), (5, 5, 0.99, 8)])
    (problem,) = problems.found
    assert (problem.what, problem.count, problem.repair) == ("boxes smaller than a pixel", 1, KEPT)
    assert len(data.boxes) == 3


def test_box_formats__nothing_but_boxes_below_a_pixel_is_an_error():
    _, problems = check_entries([(5, 5, 0.5, 9), (0.1, 0.2, 0.4, 0.4), (8, 5, 0.4, 8)])
    (error,) = problems.errors(strict=False)
    assert error.what == "boxes smaller than a pixel, and there are no others"
    assert whats(problems)[0] == "boxes between 0 and 1, which are smaller than a pixel"


def test_box_formats__what_two_decimals_round_to_nothing_is_dropped():
    data, problems = check_entries([(5, 5, 0.004, 9), (5, 5, 9, 9)])
    assert whats(problems) == ["boxes without size after clipping"]
    assert len(data.boxes) == 1


def test_box_formats__corners_are_recognised(boxes):
    _, problems = check_entries(boxes)
    (problem,) = [p for p in problems.found if "look like" in p.what]
    assert problem.what == "boxes that look like x1, y1, x2, y2"
    assert problem.count == 100
    assert "write x2 - x1 and y2 - y1" in problem.cure
    assert problem.repair == KEPT


def test_box_formats__corners_among_right_boxes_are_recognised_by_those_that_pass_the_border(boxes):
    mixed = as_xywh(boxes)
    mixed[:50] = boxes[:50]
    (problem,) = [p for p in check_entries(mixed)[1].found if "look like" in p.what]
    assert problem.what == "boxes that look like x1, y1, x2, y2"
    assert 5 <= problem.count <= 50


def test_box_formats__centres_are_recognised(boxes):
    (problem,) = [p for p in check_entries(as_centres(boxes))[1].found if "look like" in p.what]
    assert problem.what == "boxes that look like middle x, middle y, width, height"
    assert "subtract half the width and height" in problem.cure


@pytest.mark.parametrize(
    ("scale", "size", "name"),
    [(1000, (640, 480), "thousandths"), (1000, (2000, 1600), "thousandths"), (100, (640, 480), "percent")],
)
@pytest.mark.parametrize("corners", [False, True])
def test_box_formats__other_scales_are_recognised(boxes, scale, size, name, corners):
    scaled = (boxes if corners else as_xywh(boxes)) / [640, 480, 640, 480] * scale
    problem = next(p for p in check_entries(scaled, size)[1].found if "look like" in p.what)
    assert problem.what == f"boxes that look like {name} of the image"
    assert ("x1, y1, x2 and y2 in" in problem.cure) == corners


def test_box_formats__boxes_of_the_size_that_the_file_states(boxes):
    _, problems = check_entries(as_xywh(boxes) * 2, stated=(1280, 960))
    problem = next(p for p in problems.found if "size in the COCO file" in p.what)
    assert "the JSON says 1280 x 960, the file is 640 x 480" in problem.examples[0]
    assert "scale or rotate the boxes" in problem.cure


def from_centres(written):
    """x, y, width and height of boxes whose four numbers are read as middle, width and height."""
    return np.concatenate([written[:, :2] - written[:, 2:] / 2, written[:, 2:]], axis=1)


@pytest.mark.parametrize(
    ("write", "what", "cure"),
    [
        (np.array, "x1, y1, x2, y2", "write (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1 and y2 - y1"),
        (as_xywh, "x, y, width, height", "add half of the width and height"),
    ],
)
def test_box_formats__shares_in_another_format_than_centres_are_recognised(boxes, write, what, cure):
    _, problems = check_entries(from_centres(write(boxes)), wording=YOLO)
    (problem,) = [p for p in problems.found if "look like" in p.what]
    assert problem.what == f"boxes that look like {what} in shares of the image"
    assert (problem.count, problem.repair) == (100, KEPT)
    assert cure in problem.cure


def test_box_formats__shares_as_centres_are_right_also_if_they_pass_the_border(boxes):
    assert not check_entries(from_centres(as_centres(boxes)), wording=YOLO)[1].found
    moved = from_centres(as_centres(boxes)) + np.array([60, -40, 0, 0])
    assert not any("look like" in what for what in whats(check_entries(moved, wording=YOLO)[1]))


@pytest.mark.parametrize("centre", [(0.3, 0.3, 0.9, 0.9), (0.5, 0.4, 1, 1)])
def test_box_formats__two_shares_that_pass_the_border_prove_nothing(centre):
    written = np.array([centre] * 2) * [640, 480, 640, 480]
    assert not any("look like" in what for what in whats(check_entries(from_centres(written), wording=YOLO)[1]))


@pytest.mark.parametrize(("area", "told"), [(-5, True), (0, True), (float("inf"), True), (0.5, False), (None, False)])
def test_box_formats__areas_that_are_not_positive_are_replaced_and_reported(area, told):
    data, problems = check_entries([(5, 5, 8, 10)], area=area)
    found = [problem for problem in problems.found if problem.what == "areas that are not positive numbers"]
    assert [problem.repair for problem in found] == ["the area of the box is used"] * told
    assert data.area.tolist() == [80 if told or area is None else area]


@pytest.mark.parametrize(("area", "told"), [(95, False), (100, False), (165, True), (0.3, True), (None, False)])
def test_box_formats__areas_that_no_mask_can_have(area, told):
    _, problems = check_entries([(5, 5, 10, 10.5)], area=area)
    assert [what == "areas that do not fit their boxes" for what in whats(problems)] == [True] * told


def test_box_formats__the_error_of_a_file_describes_the_problem():
    _, problems = check_entries([(0.1, 0.1, 0.2, 0.3)])
    with pytest.raises(ValueError, match=r"^The data cannot be used: boxes between 0 and 1, .* \(! marks"):
        problems.settle(strict=False)


def test_box_formats__only_boxes_that_fit_the_stated_size_are_reported():
    """The file says 900 x 800 of pictures of 640 x 480; the second box fits neither, in one direction."""
    _, problems = check_entries([(600, 400, 200, 200), (600, 100, 400, 200)], stated=(900, 800))
    (found,) = [p for p in problems.found if p.what.startswith("boxes that fit the size in the COCO file")]
    assert found.count == 1
