from itertools import pairwise

import pytest
import torch
from torchvision.ops import box_iou, nms

from lit_dense.functional.tiles import merge_tiles, tile_boxes, tile_starts

LEFT, RIGHT = (0, 0, 100, 100), (80, 0, 180, 100)


def found(*rows):
    """Detections in a tile: x1, y1, x2, y2, label and score of each."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return {"boxes": table[:, :4], "labels": table[:, 4].long(), "scores": table[:, 5]}


def seen(objects, tiles):
    """What a perfect detector finds in each tile of objects: x1, y1, x2, y2, label and score."""
    detections = []
    for x1, y1, x2, y2 in tiles:
        rows = [(max(b[0], x1), max(b[1], y1), min(b[2], x2), min(b[3], y2), *b[4:]) for b in objects]
        rows = [(a - x1, b - y1, c - x1, d - y1, *more) for a, b, c, d, *more in rows if c > a and d > b]
        detections.append(found(*rows))
    return detections


@pytest.mark.parametrize("length", [1, 99, 100, 101, 119, 120, 121, 180, 181, 1000, 12345])
@pytest.mark.parametrize("overlap", [0, 0.2, 0.5, 0.99])
def test_tile_starts__cover_the_side_and_the_last_tile_ends_with_it(length, overlap):
    starts = tile_starts(length, 100, overlap)
    assert starts[0] == 0
    assert starts[-1] == max(0, length - 100)
    gaps = [b - a for a, b in pairwise(starts)]
    assert all(0 < gap <= max(1, 100 - int(100 * overlap)) for gap in gaps)


@pytest.mark.parametrize(("length", "overlap", "number"), [(200, 0, 2), (201, 0, 3), (180, 0.2, 2), (181, 0.2, 3)])
def test_tile_starts__no_more_than_needed(length, overlap, number):
    assert len(tile_starts(length, 100, overlap)) == number


def test_tile_boxes__an_image_smaller_than_a_tile_is_one_tile():
    assert tile_boxes((50, 70), 100, 0.2) == [(0, 0, 70, 50)]
    assert tile_boxes((50, 180), 100, 0.2) == [(0, 0, 100, 50), (80, 0, 180, 50)]


def test_merge_tiles__one_tile_changes_nothing():
    only = found((1, 2, 3, 4, 0, 0.9), (1, 2, 3, 4, 0, 0.8))
    assert merge_tiles([only], [(0, 0, 70, 50)]) is only


def test_merge_tiles__coordinates_of_the_image_and_best_first():
    merged = merge_tiles([found((10, 10, 20, 20, 1, 0.6)), found((50, 10, 60, 20, 0, 0.9))], [LEFT, RIGHT])
    assert merged["boxes"].tolist() == [[130, 10, 140, 20], [10, 10, 20, 20]]
    assert merged["labels"].tolist() == [0, 1]
    assert merged["scores"].tolist() == pytest.approx([0.9, 0.6])


def test_merge_tiles__object_in_two_tiles_is_found_once_for_each_class():
    merged = merge_tiles(
        [found((85, 10, 95, 20, 0, 0.6), (85, 10, 95, 20, 1, 0.5)), found((5, 10, 15, 21, 0, 0.9))], [LEFT, RIGHT]
    )
    assert merged["boxes"].tolist() == [[85, 10, 95, 21], [85, 10, 95, 20]]
    assert merged["labels"].tolist() == [0, 1]


def test_merge_tiles__detections_of_one_tile_do_not_suppress_each_other():
    merged = merge_tiles([found((10, 10, 20, 20, 0, 0.9), (10, 10, 20, 21, 0, 0.8)), found()], [LEFT, RIGHT])
    assert len(merged["boxes"]) == 2


@pytest.mark.parametrize("scores", [(0.9, 0.5), (0.5, 0.9)])
def test_merge_tiles__a_part_of_an_object_matches_the_whole(scores):
    part, whole = found((50, 10, 100, 20, 0, scores[0])), found((0, 10, 60, 20, 0, scores[1]))
    merged = merge_tiles([part, whole], [LEFT, RIGHT])
    assert merged["boxes"].tolist() == [[50, 10, 140, 20]]
    part, whole = found((50, 10, 90, 20, 0, scores[0])), found((0, 10, 10, 20, 0, scores[1]))  # the left tile has all
    assert merge_tiles([part, whole], [LEFT, RIGHT])["boxes"].tolist() == [[50, 10, 90, 20]]


@pytest.mark.parametrize("size", [(250, 333), (100, 421), (97, 100), (180, 180)])
@pytest.mark.parametrize("overlap", [0.2, 0.4])
def test_merge_tiles__a_perfect_detector_finds_each_object_once(size, overlap):
    rng = torch.Generator().manual_seed(size[1])
    objects = [(5, 3, size[1] - 7, size[0] - 9, 0, 0.95), (0, 0, size[1], size[0], 1, 0.9)]  # in all tiles
    for x in range(0, size[1] - 14, 15):
        for y in range(0, size[0] - 14, 15):
            score = float(torch.rand((), generator=rng))
            objects.append((x, y, x + 13, y + 14, 2 + (x + y) // 15 % 2, score))
    tiles = tile_boxes(size, 100, overlap)
    merged = merge_tiles(seen(objects, tiles), tiles)
    assert sorted(map(tuple, merged["boxes"].tolist())) == sorted(b[:4] for b in objects)
    assert sorted(merged["scores"].tolist()) == pytest.approx(sorted(b[5] for b in objects))


def test_merge_tiles__small_object_in_front_of_a_large_one_stays():
    merged = merge_tiles([found((20, 0, 100, 90, 0, 0.9)), found((5, 40, 12, 50, 0, 0.8))], [LEFT, RIGHT])
    assert len(merged["boxes"]) == 2


def test_merge_tiles__without_overlap_parts_stay_apart():
    tiles = tile_boxes((100, 200), 100, 0)
    merged = merge_tiles(seen([(90, 10, 120, 20, 0, 0.9), (10, 10, 20, 20, 0, 0.8)], tiles), tiles)
    assert sorted(merged["boxes"].tolist()) == [[10, 10, 20, 20], [90, 10, 100, 20], [100, 10, 120, 20]]


def test_merge_tiles__without_detections():
    merged = merge_tiles([found(), found()], [LEFT, RIGHT])
    assert merged["boxes"].shape == (0, 4)
    assert merged["labels"].dtype == torch.int64


def test_merge_tiles__neighbours_of_one_class_stay_apart():
    tiles = [(0, 0, 500, 100), (400, 0, 900, 100)]
    objects = [(340, 0, 480, 100, 0, 0.9), (400, 0, 450, 100, 0, 0.8)]
    assert len(merge_tiles(seen(objects, tiles), tiles)["boxes"]) == 2


def test_merge_tiles__a_crowd_of_people_loses_nobody():
    generator = torch.Generator().manual_seed(0)
    tiles = tile_boxes((640, 1600), 640, 0.2)
    for _ in range(20):
        corners = torch.rand(200, 2, generator=generator) * torch.tensor([1500.0, 60.0])
        sides = torch.tensor([40.0, 120.0]) + torch.rand(200, 2, generator=generator) * torch.tensor([40.0, 80.0])
        boxes = torch.cat([corners, corners + sides], 1)
        boxes = boxes[nms(boxes, torch.ones(200), 0.5)]
        objects = [(*box, 0, 0.9 - 0.001 * number) for number, box in enumerate(boxes.tolist())]
        found = merge_tiles(seen(objects, tiles), tiles)
        assert len(found["boxes"]) == len(objects)
        assert (box_iou(boxes, found["boxes"]).max(1).values > 0.99).all()
