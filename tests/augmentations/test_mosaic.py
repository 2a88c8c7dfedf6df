import numpy as np
import pytest
import torch

from lit_dense.augmentations import AUGMENTATIONS
from lit_dense.augmentations.mosaic_augmentation import Mosaic, mosaic_places
from lit_dense.core.errors import UsageError
from tests.builders.pictures import Images, picture


def test_mosaic_places__worked_values():
    found = mosaic_places((70, 50), (128, 128), [(48, 64)] * 4)
    assert [place for place, _ in found] == [(6, 2, 70, 50), (70, 2, 128, 50), (6, 50, 70, 98), (70, 50, 128, 98)]
    assert [source for _, source in found] == [(0, 0, 64, 48), (0, 0, 58, 48), (0, 0, 64, 48), (0, 0, 58, 48)]


@pytest.mark.parametrize("centre", [(0, 0), (128, 128), (-5, 60), (140, 60)])
def test_mosaic_places__parts_lie_on_the_canvas_and_in_their_images(centre):
    for place, source in mosaic_places(centre, (128, 128), [(48, 64), (200, 30), (1, 1), (128, 128)]):
        sizes = [(x2 - x1, y2 - y1) for x1, y1, x2, y2 in (place, source)]
        assert sizes[0] == sizes[1]
        assert min(sizes[0]) >= 0
        if min(sizes[0]):
            assert 0 <= min(place) <= max(place) <= 128
            assert min(source) >= 0


def four(**options):
    pictures = [picture(colour=50 * number, labels=[number]) for number in range(1, 5)]
    mosaic = Mosaic(p=1, **options)
    return mosaic(pictures[0], [1, 2, 3], Images(*pictures), np.random.default_rng(0))


def test_mosaic__four_images_of_half_the_size_meet_in_the_middle():
    found = four(scale=(0.5, 0.5), centre=(0.5, 0.5))
    assert found.size == (48, 64)
    assert found.image[0, [0, 0, 47, 47], [0, 63, 0, 63]].tolist() == [50, 100, 150, 200]
    assert found.fields["labels"].tolist() == [1, 2, 3, 4]
    assert found.boxes.tolist() == [[5, 5, 15, 10], [37, 5, 47, 10], [5, 29, 15, 34], [37, 29, 47, 34]]
    assert found.fields["area"].tolist() == [50.0] * 4


def test_mosaic__boxes_are_cut_where_images_end():
    found = four(scale=(1, 1), centre=(0.25, 0.25))  # the images meet at (16, 12)
    corners = {int(label): box.tolist() for label, box in zip(found.fields["labels"], found.boxes, strict=True)}
    assert corners == {4: [26, 22, 46, 32]}  # the first three show their lower and right parts
    assert (found.image[0, :12, :16] == 50).all()
    assert (found.image[0, 12:, 16:] == 200).all()


def test_mosaic__places_without_an_image_have_the_mean_colour():
    wide = picture(64, 16, boxes=())
    found = Mosaic(p=1, scale=(1, 1), centre=(0.5, 0.5))(
        picture(64, 48), [0, 0, 0], Images(wide), np.random.default_rng(0)
    )
    assert found.image[:, 44, 40].tolist() == [124, 116, 104]
    assert found.image[0, 30, 40] == 200


@pytest.mark.parametrize("seed", range(20))
def test_mosaic__boxes_stay_inside_and_nothing_is_changed_in_place(seed):
    rng = np.random.default_rng(seed)
    boxes = [(x, y, x + w, y + h) for x, y, w, h in rng.integers(1, 20, (5, 4)).tolist()]
    pictures = [picture(*rng.integers(41, 90, 2).tolist(), boxes=boxes, crowds=(1,)) for _ in range(4)]
    before = [(p.image.clone(), p.boxes.clone(), p.fields["area"].clone()) for p in pictures]
    found = Mosaic()(pictures[0], [1, 2, 3], Images(*pictures), rng)
    height, width = found.size
    assert (found.boxes >= 0).all()
    assert (found.boxes <= torch.tensor([width, height, width, height])).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    assert {len(value) for value in found.fields.values()} == {len(found.boxes)}
    for one, (image, corners, area) in zip(pictures, before, strict=True):
        assert torch.equal(one.image, image)
        assert torch.equal(one.boxes, corners)
        assert torch.equal(one.fields["area"], area)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": 1.5}, r"p must be in \[0, 1\], not 1.5"),
        ({"close_after": -0.1}, r"close_after must be in \[0, 1\]"),
        ({"scale": (1.0, 0.5)}, r"mosaic: scale must be two numbers, the smaller first, not \(1\.0, 0\.5\)"),
        ({"centre": (0.5, 2)}, r"centre must be in \[0, 1\], not 2"),
    ],
)
def test_mosaic__wrong_arguments(options, message):
    with pytest.raises(UsageError, match=message):
        Mosaic(**options)


@pytest.mark.parametrize("scale", [0.5, "0.5", [0.5], [1.0, 0.5]])
def test_mosaic__an_interval_has_two_ends(scale):
    with pytest.raises(UsageError, match="scale must be two numbers, the smaller first, not"):
        AUGMENTATIONS.build({"class_path": "mosaic", "init_args": {"scale": scale}})
