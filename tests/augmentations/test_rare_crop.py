from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lit_dense.augmentations import AUGMENTATIONS
from lit_dense.augmentations.rare_crop_augmentation import RareCrop, crop_start, cropped
from lit_dense.core.errors import UsageError
from tests.builders.pictures import Images, picture


def crop(one, counts=(100, 1), seed=0, **options):
    """The image after a crop, of a training set with so many objects of each class."""
    augmentation = RareCrop(**{"size": 40} | options)
    labels = np.repeat(np.arange(len(counts)), counts)
    augmentation.receive_objects(SimpleNamespace(iscrowd=np.zeros(len(labels), bool)), labels)
    return augmentation(one, [], Images(one), np.random.default_rng(seed))


def test_rare_crop__by_name():
    assert isinstance(AUGMENTATIONS.build("rare_crop"), RareCrop)


@pytest.mark.parametrize("seed", range(20))
def test_rare_crop__shows_the_whole_object(seed):
    one = picture(200, 150, boxes=[(100, 70, 120, 85)])
    one.image[:, 70:85, 100:120] = 7
    found = crop(one, seed=seed)
    assert found.size == (40, 40)
    x1, y1, x2, y2 = map(int, found.boxes[0].tolist())
    assert (x2 - x1, y2 - y1) == (20, 15)
    assert (found.image[:, y1:y2, x1:x2] == 7).all()
    assert int((found.image == 7).sum()) == 3 * 20 * 15
    assert found.image.untyped_storage().nbytes() == 3 * 40 * 40  # not the pixels of the whole image
    assert torch.equal(one.boxes, torch.tensor([[100.0, 70, 120, 85]]))


def test_rare_crop__places_differ():
    one = picture(200, 150, boxes=[(100, 70, 120, 85)])
    assert len({tuple(crop(one, seed=seed).boxes[0].tolist()) for seed in range(20)}) > 10


def test_rare_crop__rare_classes_are_drawn_more_often():
    one = picture(400, 40, boxes=[(0, 0, 20, 20), (380, 0, 400, 20)], labels=[0, 1])
    shares = {
        power: np.mean([crop(one, (400, 4), seed, power=power).fields["labels"].tolist() == [1] for seed in range(400)])
        for power in (0, 0.5)
    }
    assert shares[0] == pytest.approx(0.5, abs=0.07)
    assert shares[0.5] == pytest.approx(10 / 11, abs=0.05)


def test_rare_crop__boxes_are_cut_with_the_visible_share_rule():
    boxes = [(10, 10, 30, 30), (48, 10, 68, 30), (49, 10, 69, 30), (20, 0, 60, 40), (60, 10, 70, 20)]
    found = cropped(picture(100, 40, boxes=boxes), (10, 0, 50, 40))
    assert found.boxes.tolist() == [[0, 10, 20, 30], [38, 10, 40, 30], [39, 10, 40, 30], [10, 0, 40, 40]]
    assert found.fields["iscrowd"].tolist() == [0, 1, 1, 0]
    assert found.fields["area"].tolist() == [400, 40, 20, 1200]


def test_rare_crop__image_without_objects_or_with_regions_only():
    found = {crop(picture(200, 50, boxes=[(0, 0, 3, 3)], crowds=(0,)), seed=seed).size for seed in range(9)}
    assert found == {(40, 40)}
    assert crop(picture(200, 30, boxes=())).size == (30, 40)


def test_rare_crop__an_image_of_the_size_stays():
    one = picture(40, 40)
    assert crop(one) is one


def test_rare_crop__an_object_larger_than_the_crop():
    found = crop(picture(200, 150, boxes=[(20, 30, 190, 140)]))
    assert found.boxes.tolist() == [[0, 0, 40, 40]]


@pytest.mark.parametrize(
    ("low", "high", "length", "expected"),
    [(50, 60, 200, (20, 50)), (2, 5, 200, (0, 2)), (195.5, 199.5, 200, (160, 160)), (30, 100, 200, (30, 60))],
)
def test_crop_start__range(low, high, length, expected):
    starts = {crop_start(low, high, length, 40, np.random.default_rng(seed)) for seed in range(400)}
    assert (min(starts), max(starts)) == expected


def test_rare_crop__class_whose_objects_lie_outside_is_absent():
    boxes = [(0, 0, 9, 9), (80, 0, 90, 9), (90, 0, 99, 9)]
    one = picture(100, 40, boxes=boxes, absent=torch.tensor([3]), partial=torch.tensor([2]))
    found = cropped(one, (0, 0, 40, 40))
    assert found.fields["labels"].tolist() == [0]
    assert (found.absent.tolist(), found.partial.tolist()) == ([1, 3], [2])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"size": 8}, "rare_crop: size must be at least 32, not 8"), ({"power": -1}, "power must be at least 0, not -1")],
)
def test_rare_crop__wrong_arguments(options, message):
    with pytest.raises(UsageError, match=message):
        RareCrop(**options)


def test_rare_crop__a_mirrored_picture_may_have_a_class_without_objects():
    one = picture(200, 150, boxes=[(100, 70, 120, 85)])
    one.fields["labels"][:] = 3
    assert crop(one, counts=(100, 1)).size == (40, 40)


@pytest.mark.parametrize(("largest", "is_told"), [(40, True), (41, False)])
def test_rare_crop__a_size_that_crops_no_image_is_told(largest, is_told, recwarn):
    objects = SimpleNamespace(iscrowd=np.zeros(1, bool), sizes=np.array([[30, 20], [17, largest]]))
    RareCrop(size=40).receive_objects(objects, np.zeros(1, np.int64))
    told = [str(one.message) for one in recwarn]
    assert bool(told) == is_told
    assert all("no training image has a side of more than size=40 pixels" in one for one in told)
