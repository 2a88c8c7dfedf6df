from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from lit_dense.augmentations.copy_paste_augmentation import CopyPaste, class_probabilities, paste
from lit_dense.augmentations.outlines import mask_of, outline_of
from tests.builders.pictures import Images, picture


def test_class_probabilities__worked_values():
    assert class_probabilities([1000, 100, 10], 0.5).tolist() == pytest.approx([0.070610, 0.223289, 0.706101], abs=1e-6)
    assert class_probabilities([5, 0, 5], 1).tolist() == [0.5, 0, 0.5]
    assert class_probabilities([100, 10], 0).tolist() == [0.5, 0.5]
    assert class_probabilities([0, 0], 0.5).tolist() == [0, 0]


def prepared(pictures, outlines=None, flips=True, **options):
    """A CopyPaste of pictures, and the pictures as a training set."""
    objects = SimpleNamespace(
        offsets=np.cumsum([0, *(len(p.boxes) for p in pictures)]),
        iscrowd=np.concatenate([p.fields["iscrowd"].numpy() for p in pictures]).astype(bool),
        outlines=outlines,
    )
    found = CopyPaste(**{"p": 1, "scale": (1.0, 1.0), "number": 1} | options)
    found.receive_objects(objects, np.concatenate([p.fields["labels"].numpy() for p in pictures]))
    return found, Images(*pictures, mirrored=(0, 3, 2, 1), flips=flips)


def test_copy_paste__an_object_comes_with_its_box():
    source = picture(labels=[2])
    source.image[:, 10:20, 10:30] = 40
    augmentation, images = prepared([source])
    empty = picture(boxes=(), colour=90)
    found = augmentation(empty, [], images, np.random.default_rng(0))
    ((x1, y1, x2, y2),) = found.boxes.int().tolist()
    assert (x2 - x1, y2 - y1) == (20, 10)
    assert (found.image[:, y1:y2, x1:x2] == 40).all()
    assert found.fields["labels"].tolist() == [2]
    assert found.fields["area"].tolist() == [200]
    outside = found.image.clone()
    outside[:, y1 - 2 : y2 + 2, x1 - 2 : x2 + 2] = 90
    assert (outside == 90).all()
    assert (empty.image == 90).all()


def test_copy_paste__a_size_is_relative_to_the_images():
    augmentation, images = prepared([picture(128, 96, boxes=((20, 20, 60, 40),))])
    found = augmentation(picture(64, 48, boxes=()), [], images, np.random.default_rng(0))
    sides = (found.boxes[:, 2:] - found.boxes[:, :2]).tolist()[0]
    assert sides == pytest.approx([20, 10], abs=0.5)


@pytest.mark.parametrize("seed", range(30))
def test_copy_paste__covers_no_object_too_far(seed):
    augmentation, images = prepared([picture(labels=[1])], number=3, max_overlap=0.2)
    found = augmentation(picture(boxes=((8, 8, 40, 40),), labels=[0]), [], images, np.random.default_rng(seed))
    boxes = found.boxes
    assert found.fields["labels"].tolist()[0] == 0
    for row in range(len(boxes)):
        for other in range(row):
            sides = torch.minimum(boxes[row, 2:], boxes[other, 2:]) - torch.maximum(boxes[row, :2], boxes[other, :2])
            common = float(sides.clamp(min=0).prod())
            assert common <= 0.2 * 200 + 1e-3


def test_copy_paste__neighbours_come_along_and_parts_are_ignored():
    # of class 1 most lies in the rectangle of class 0, of class 2 a small part
    boxes = ((10, 10, 30, 30), (15, 15, 20, 20), (28, 10, 60, 30), (50, 40, 60, 47))
    augmentation, images = prepared([picture(boxes=boxes, labels=[0, 1, 2, 2])])
    drawn = (augmentation(picture(boxes=()), [], images, np.random.default_rng(seed)) for seed in range(100))
    found = next(one for one in drawn if one.fields["labels"].tolist()[:1] == [0])
    assert found.fields["labels"].tolist() == [0, 1, 2]
    assert found.fields["iscrowd"].tolist() == [0, 0, 1]


@pytest.mark.parametrize(("flips", "expected"), [(True, {1, 3}), (False, {1})])
def test_copy_paste__a_mirrored_object_has_a_mirrored_class(flips, expected):
    augmentation, images = prepared([picture(labels=[1])], flips=flips)
    drawn = (augmentation(picture(boxes=()), [], images, np.random.default_rng(seed)) for seed in range(20))
    assert {label for one in drawn for label in one.fields["labels"].tolist()} == expected


def test_copy_paste__ignore_regions_are_not_copied():
    augmentation, images = prepared([picture(crowds=(0,))])
    given = picture(boxes=())
    assert augmentation(given, [], images, np.random.default_rng(0)) is given


def test_copy_paste__an_object_that_is_too_large_is_left_out():
    augmentation, images = prepared([picture(boxes=((0, 0, 64, 48),))], scale=(1.2, 1.2))
    given = picture(boxes=())
    assert augmentation(given, [], images, np.random.default_rng(0)) is given


def test_copy_paste__with_an_outline_only_the_object_is_copied():
    source = picture(colour=40, boxes=((10, 10, 30, 30),))
    outlines = [[[10, 10, 20, 10, 20, 30, 10, 30]]]  # the left half of the box
    augmentation, images = prepared([source], outlines)
    found = augmentation(picture(boxes=(), colour=90), [], images, np.random.default_rng(1))
    x1, y1, x2, _ = found.boxes[0].int().tolist()
    left, right = sorted([found.image[0, y1 + 5, x1 + 4].item(), found.image[0, y1 + 5, x2 - 4].item()])
    assert (left, right) == (40, 90)


def test_copy_paste__an_outline_that_is_elsewhere_is_not_used():
    augmentation, images = prepared([picture(colour=40)], [[[50, 40, 60, 40, 60, 47]]])
    found = augmentation(picture(boxes=(), colour=90), [], images, np.random.default_rng(1))
    x1, y1, x2, y2 = found.boxes[0].int().tolist()
    assert (found.image[:, y1:y2, x1:x2] == 40).all()


def test_outlines__polygons_and_run_lengths_agree():
    polygon = [[10.0, 5, 30, 5, 30, 25, 10, 25]]
    coded = coco_mask.frPyObjects(polygon, 40, 50)[0]
    text = {"size": coded["size"], "counts": coded["counts"].decode()}
    plain = {"size": [40, 50], "counts": [0, 3, 1997]}
    outlines = [outline_of(given) for given in (polygon, text, plain, [], None, [[1, 2]], "x", {"size": [1]})]
    assert outlines[3:] == [None] * 5
    masks = [mask_of(outlines[row], (8, 3, 34, 28)) for row in range(2)]
    assert masks[0].shape == (25, 26)
    assert (masks[0] != masks[1]).mean() < 0.1
    assert masks[1].sum() == 400
    assert mask_of(outlines[2], (0, 0, 4, 5)).sum() == 3


def test_paste__lists_of_absent_classes_follow():
    given = picture(labels=[0], absent=torch.tensor([1, 2]), partial=torch.tensor([], dtype=torch.int64))
    part = picture(10, 10, boxes=((1, 1, 5, 5), (2, 2, 6, 6)), labels=[1, 3])
    found = paste(given, part, torch.ones(10, 10), (3, 4))
    assert found.boxes[1:].tolist() == [[4, 5, 8, 9], [5, 6, 9, 10]]
    assert found.absent.tolist() == [2]
    assert found.partial.tolist() == [3]  # class 1 was known to be absent from the rest, class 3 was not


def test_copy_paste__objects_come_from_images_that_are_annotated_for_the_classes_of_the_image():
    groups = SimpleNamespace(of_image=np.array([0, 1, 2]), partners=np.array([[1, 0, 1], [0, 1, 1], [0, 0, 1]], bool))
    pictures = [picture(boxes=[(10, 10, 30, 20)], labels=[label], group=label) for label in range(3)]
    objects = SimpleNamespace(
        offsets=np.arange(4),
        iscrowd=np.zeros(3, bool),
        groups=groups,
    )
    augmentation = CopyPaste(p=1.0, number=1)
    augmentation.receive_objects(objects, np.arange(3))
    pasted = {
        group: {
            label
            for seed in range(30)
            for label in augmentation(
                picture(boxes=[], labels=[], group=group), [], Images(*pictures), np.random.default_rng(seed)
            )
            .fields["labels"]
            .tolist()
        }
        for group in range(3)
    }
    assert pasted == {0: {0, 2}, 1: {1, 2}, 2: {2}}
