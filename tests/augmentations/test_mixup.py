import numpy as np
import pytest
import torch

from lit_dense.augmentations.mixup_augmentation import Mixup, mix
from tests.builders.pictures import Images, picture


def test_mix__worked_values():
    values = (torch.full((3, 1, 1), value, dtype=torch.uint8) for value in (200, 101))
    assert mix(*values, 0.5).flatten().tolist() == [150] * 3


def mixed(seed, flips=True, **options):
    other = picture(64, 48, colour=100, boxes=((0, 0, 64, 48),), labels=[1])
    mixup = Mixup(p=1, **options)
    return mixup(picture(labels=[0]), [0], Images(other, mirrored=(0, 3), flips=flips), np.random.default_rng(seed))


def test_mixup__both_images_give_their_boxes():
    found = mixed(0, alpha=1e6, scale=(1.0, 1.0))
    assert found.boxes.tolist() == [[10, 10, 30, 20], [0, 0, 64, 48]]
    assert found.fields["labels"][0] == 0
    assert found.image[0, 0, 0] == pytest.approx(150, abs=1)


def test_mixup__a_mirrored_image_has_mirrored_classes():
    labels = [mixed(seed).fields["labels"].tolist() for seed in range(20)]
    assert {tuple(found) for found in labels} == {(0, 1), (0, 3)}
    assert {tuple(mixed(seed, flips=False).fields["labels"].tolist()) for seed in range(20)} == {(0, 1)}


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("scale", [0.5, 1.5])
def test_mixup__the_other_image_lies_inside_or_covers_the_first(seed, scale):
    found = mixed(seed, scale=(scale, scale))
    x1, y1, x2, y2 = found.boxes[1].tolist()
    assert (x2 - x1, y2 - y1) == ((32, 24) if scale == 0.5 else (64, 48))
    assert min(x1, y1) >= 0
    assert x2 <= 64
    assert y2 <= 48


def test_mixup__with_an_image_without_boxes():
    found = Mixup(p=1)(picture(), [0], Images(picture(boxes=())), np.random.default_rng(0))
    assert len(found.boxes) == len(found.fields["labels"]) == 1
