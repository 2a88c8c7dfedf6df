import pytest
import torch
from PIL import Image, ImageChops, ImageDraw

from lit_dense.visualization.draw import _draw_object, draw_boxes, draw_error, side_by_side


def test_draw_boxes__boxes_are_drawn_where_they_are():
    image = torch.zeros(3, 100, 100, dtype=torch.uint8)
    plain = draw_boxes(image, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), ["a"], side=200)
    drawn = draw_boxes(
        image, torch.tensor([[20.0, 40, 60, 80]]), torch.tensor([0]), ["a"], torch.tensor([0.5]), side=200
    )
    assert plain.size == (200, 200)
    assert plain.getbbox() is None
    left, top, right, bottom = ImageChops.difference(plain, drawn).getbbox()
    assert (left, right, bottom) == (40, 121, 161)
    assert 40 < top < 80  # the caption lies above the box


@pytest.mark.parametrize(("channels", "shown"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 1, 2]), (5, [0, 1, 2])])
def test_draw_boxes__images_of_any_number_of_channels_are_drawn(channels, shown):
    image = torch.arange(channels).mul(50).to(torch.uint8)[:, None, None].expand(channels, 16, 16)
    picture = draw_boxes(image, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), [], side=16)
    assert picture.mode == "RGB"
    assert picture.getpixel((3, 3)) == tuple(50 * channel for channel in shown)


def test_draw_boxes__the_best_of_equal_boxes_lies_on_top():
    image, boxes = torch.zeros(3, 200, 200, dtype=torch.uint8), torch.tensor([[50.0, 50, 150, 150]]).repeat(2, 1)
    drawn = draw_boxes(image, boxes, torch.tensor([0, 1]), ["best", "second"], torch.tensor([0.9, 0.4]), side=200)
    alone = draw_boxes(image, boxes[:1], torch.tensor([0]), ["best"], torch.tensor([0.9]), side=200)
    assert drawn.getpixel((50, 100)) == alone.getpixel((50, 100)) != (0, 0, 0)


def test_draw_boxes__captions_hide_nothing_of_each_other():
    image = torch.zeros(3, 200, 200, dtype=torch.uint8)
    boxes = torch.tensor([[50.0, 50, 150, 150]]).repeat(8, 1)
    drawn = draw_boxes(image, boxes, torch.arange(8), list("abcdefgh"), side=200)
    assert drawn.size == (200, 200)  # the three places are taken, and the other captions are left out


def test_side_by_side__has_all_images():
    pictures = [draw_boxes(torch.zeros(3, 50, 80), torch.zeros(0, 4), torch.zeros(0), [], side=50)] * 2
    assert side_by_side([pictures, pictures], ["left", "right"]).size == (2 * 80 + 3 * 8, 36 + 2 * 50 + 3 * 8)


def test_side_by_side__a_note_is_written_at_the_lower_left_and_nowhere_else():
    image, none = torch.zeros(3, 200, 300, dtype=torch.uint8), torch.zeros(0, dtype=torch.long)
    plain = draw_boxes(image, torch.zeros(0, 4), none, [], side=200)
    noted = draw_boxes(image, torch.zeros(0, 4), none, [], side=200, note="0 of 5")
    left, top, right, bottom = ImageChops.difference(plain, noted).getbbox()
    assert (left, bottom) == (0, 200)
    assert top > 175
    assert 20 < right < 150
    assert noted.getpixel((1, 198)) == (255, 255, 255)
    assert (0, 0, 0) in [noted.getpixel((x, y)) for x in range(right) for y in range(top, 200)]


def test_draw_error__shows_the_surroundings_of_the_error():
    image = torch.zeros(3, 400, 400, dtype=torch.uint8)
    objects = torch.tensor([[100.0, 100, 140, 140], [300, 300, 320, 320]])
    wrong = draw_error(image, objects, torch.tensor([110.0, 100, 150, 140]), None, 200)
    assert wrong.size == (200, 200)
    colours = {colour for _, colour in wrong.getcolors(100000)}
    assert {(0xE6, 0x9F, 0), (0x56, 0xB4, 0xE9)} <= colours  # solid and dashed lines
    missed = draw_error(image, objects, None, objects[0], 200)
    assert (0xE6, 0x9F, 0) not in {colour for _, colour in missed.getcolors(100000)}
    thin = draw_error(image, objects, objects[0], None, 200)
    dashes = [sum(n for n, c in picture.getcolors(100000) if c == (0x56, 0xB4, 0xE9)) for picture in (missed, thin)]
    assert dashes[0] > 2 * dashes[1]  # the missed object is thicker


@pytest.mark.parametrize("box", [[-50.0, -50, -10, -10], [500, 500, 600, 600], [5, 5, 5, 5], [-10, -10, 900, 900]])
def test_draw_error__of_a_box_outside_the_image(box):
    image = torch.zeros(1, 30, 40, dtype=torch.uint8)
    assert max(draw_error(image, torch.zeros(0, 4), torch.tensor(box), None, 100).size) == 100


@pytest.mark.parametrize("size", [(0.0, 0.0), (0.5, 30.0), (1.9, 1.9), (2.0, 2.0), (30.0, 0.5)])
def test_draw_weights__objects_without_an_inside_are_drawn(size):
    canvas = Image.new("RGB", (64, 64), "grey")
    _draw_object(ImageDraw.Draw(canvas), (10.0, 10.0, 10 + size[0], 10 + size[1]))
    assert canvas.getpixel((10, 10)) == (0, 0, 0)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_draw_boxes__images_of_every_float_are_drawn(kind):
    picture = draw_boxes(torch.full((3, 16, 16), 0.5, dtype=kind), torch.zeros(0, 4), torch.zeros(0), [], side=16)
    assert picture.getpixel((3, 3)) == (127, 127, 127)
