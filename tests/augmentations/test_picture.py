import pytest
import torch

from lit_dense.augmentations.copy_paste_augmentation import paste
from lit_dense.augmentations.picture import cut, joined, mirrored, resized
from lit_dense.augmentations.rare_crop_augmentation import cropped
from tests.builders.pictures import picture


def test_resized__boxes_and_areas_follow_the_image():
    found = resized(picture(64, 48), (24, 64))
    assert found.size == (24, 64)
    assert found.boxes.tolist() == [[10, 5, 30, 10]]
    assert found.fields["area"].tolist() == [100]


def test_mirrored__boxes_and_classes_follow_the_image():
    given = picture(labels=[2])
    given.image[:, :, 0] = 7
    found = mirrored(given, torch.tensor([0, 2, 1]))
    assert found.boxes.tolist() == [[34, 10, 54, 20]]
    assert found.fields["labels"].tolist() == [1]
    assert found.image[0, 0, -1] == 7


def test_cut__a_box_of_which_little_is_left_becomes_an_ignore_region():
    boxes = torch.tensor([[0.0, 0, 20, 20], [8, 0, 28, 20], [9.5, 0, 29.5, 20], [10, 0, 30, 20], [2, 2, 3, 3]])
    fields = {"labels": torch.arange(5), "area": torch.full((5,), 40.0), "iscrowd": torch.tensor([0, 0, 0, 0, 0])}
    found, values = cut(boxes, fields, (0, 0, 10, 20))
    assert values["labels"].tolist() == [0, 1, 2, 4]  # nothing is left of label 3
    assert found[:3].tolist() == [[0, 0, 10, 20], [8, 0, 10, 20], [9.5, 0, 10, 20]]
    assert values["area"].tolist() == [20, 4, 1, 40]
    assert values["iscrowd"].tolist() == [0, 1, 1, 0]  # label 4 is small, but it was not cut


def test_cut__ignore_regions_stay_ignore_regions():
    fields = {"labels": torch.zeros(1), "area": torch.ones(1), "iscrowd": torch.ones(1, dtype=torch.int64)}
    _, values = cut(torch.tensor([[0.0, 0, 20, 20]]), fields, (0, 0, 18, 20))
    assert values["iscrowd"].tolist() == [1]


def lists(absent, partial):
    return {"absent": torch.tensor(absent, dtype=torch.int64), "partial": torch.tensor(partial, dtype=torch.int64)}


@pytest.mark.parametrize(
    ("second", "absent", "partial"),
    [
        ({"labels": [0], **lists([1, 2], [])}, [1, 2], []),  # both know the classes 0, 1 and 2
        ({"labels": [1], **lists([2], [])}, [2], [0]),  # the second does not know class 0
        ({"labels": [1], **lists([0, 2], [])}, [2], []),
        ({"labels": [0], **lists([1], [0])}, [1], [0]),  # class 0 is annotated in part
    ],
)
def test_joined__a_class_is_absent_if_all_parts_say_so(second, absent, partial):
    first = picture(labels=[0], **lists([1, 2], []))
    found = joined(first.image, [first, picture(**second)])
    assert found.absent.tolist() == absent
    assert found.partial.tolist() == partial


def test_joined__a_class_is_unknown_if_a_part_is_not_annotated_for_it():
    first, second = picture(unknown=torch.tensor([1, 2])), picture(unknown=torch.tensor([2, 3]))
    assert joined(first.image, [first, second]).unknown.tolist() == [1, 2, 3]
    assert joined(first.image, [first, picture()]).unknown.tolist() == [1, 2]
    assert joined(first.image, [picture(), picture()]).unknown is None


def test_picture__every_operation_keeps_the_unknown_classes():
    one = picture(unknown=torch.tensor([1]), group=2)
    swapped = mirrored(one, torch.tensor([0, 2, 1]))
    assert swapped.unknown.tolist() == [2]
    for changed in (resized(one, (24, 32)), cropped(one, (0, 0, 32, 32)), swapped):
        assert changed.unknown is not None
        assert changed.group == 2
    part = picture(8, 8, boxes=[(0, 0, 8, 8)], unknown=torch.tensor([3]))
    assert paste(one, part, torch.ones(8, 8), (0, 0)).unknown.tolist() == [1, 3]
