import torch
from PIL import ImageChops

from lit_dense.pictures import draw_boxes, keep_scores, side_by_side


def test_boxes_are_drawn_where_they_are():
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


def test_the_best_of_equal_boxes_lies_on_top():
    image, boxes = torch.zeros(3, 200, 200, dtype=torch.uint8), torch.tensor([[50.0, 50, 150, 150]]).repeat(2, 1)
    drawn = draw_boxes(image, boxes, torch.tensor([0, 1]), ["best", "second"], torch.tensor([0.9, 0.4]), side=200)
    alone = draw_boxes(image, boxes[:1], torch.tensor([0]), ["best"], torch.tensor([0.9]), side=200)
    assert drawn.getpixel((50, 100)) == alone.getpixel((50, 100)) != (0, 0, 0)


def test_captions_hide_nothing_of_each_other():
    image = torch.zeros(3, 200, 200, dtype=torch.uint8)
    boxes = torch.tensor([[50.0, 50, 150, 150]]).repeat(8, 1)
    drawn = draw_boxes(image, boxes, torch.arange(8), list("abcdefgh"), side=200)
    assert drawn.size == (200, 200)  # the three places are taken, and the other captions are left out


def test_sheets_hold_all_pictures():
    pictures = [draw_boxes(torch.zeros(3, 50, 80), torch.zeros(0, 4), torch.zeros(0), [], side=50)] * 2
    assert side_by_side([pictures, pictures], ["left", "right"]).size == (2 * 80 + 3 * 8, 36 + 2 * 50 + 3 * 8)


def test_scores_are_kept_from_a_threshold():
    kept = keep_scores({"boxes": torch.rand(3, 4), "scores": torch.tensor([0.1, 0.3, 0.9])}, 0.3)
    assert len(kept["boxes"]) == 2
