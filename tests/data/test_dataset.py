import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2

from lit_dense.data import CocoDataset, DataError, Draw, box_rows, default_train_transforms
from lit_dense.data.checks.annotation_file import check_split
from lit_dense.data.dataset import collate, collate_images
from lit_dense.data.formats.coco import read_coco
from lit_dense.data.problems import Problems
from lit_dense.data.transforms import compose
from tests.builders.coco_files import box_entry, image_entry, write_image, write_json

IDS = np.array([3, 7])


@pytest.fixture
def data(tmp_path):
    """Image 1 with two boxes, one a crowd, and image 2 without."""
    for number in (1, 2):
        write_image(tmp_path / "images" / f"{number}.png", seed=number)
    boxes = [box_entry(1, 1, (2, 3, 10, 20), 7, area=50), box_entry(2, 1, (30, 20, 10, 10), iscrowd=1)]
    path = write_json(tmp_path / "a.json", [image_entry(1), image_entry(2)], boxes)
    problems = Problems()
    found = check_split(read_coco(path, problems), tmp_path / "images", problems)
    assert not problems.found
    return found


def test_coco_dataset__a_sample(data):
    image, target = CocoDataset(data, IDS)[0]
    assert isinstance(image, tv_tensors.Image)
    assert image.shape == (3, 30, 40)
    assert image.dtype == torch.uint8
    assert isinstance(target["boxes"], tv_tensors.BoundingBoxes)
    assert target["boxes"].canvas_size == (30, 40)
    assert target["boxes"].tolist() == [[2, 3, 12, 23], [30, 20, 40, 30]]
    assert target["boxes"].dtype == torch.float32
    assert target["labels"].tolist() == [1, 0]
    assert target["area"].tolist() == [50, 100]
    assert target["iscrowd"].tolist() == [0, 1]
    assert target["labels"].dtype == target["iscrowd"].dtype == torch.int64
    assert (target["image_id"], target["file_name"], target["orig_size"]) == (1, "1.png", (30, 40))


def test_coco_dataset__an_image_without_boxes_is_a_sample(data):
    for transforms in (None, compose(default_train_transforms())):
        image, target = CocoDataset(data, IDS, transforms)[1]
        assert image.shape == (3, 30, 40)
        assert target["boxes"].shape == (0, 4)
        assert {target[name].shape for name in ("labels", "area", "iscrowd")} == {(0,)}


def test_coco_dataset__changing_a_sample_changes_no_other(data):
    dataset = CocoDataset(data, IDS)
    _, target = dataset[0]
    for name in ("boxes", "labels", "area", "iscrowd"):
        target[name].zero_()
    assert dataset[0][1]["boxes"].tolist() == [[2, 3, 12, 23], [30, 20, 40, 30]]
    assert dataset[0][1]["labels"].tolist() == [1, 0]
    assert dataset[0][1]["area"].tolist() == [50, 100]


def test_coco_dataset__flipped_boxes_stay_on_their_objects(data):
    image, target = CocoDataset(data, IDS, compose([v2.RandomHorizontalFlip(p=1)]))[0]
    plain, _ = CocoDataset(data, IDS)[0]
    assert torch.equal(image, plain.flip(-1))
    assert target["boxes"].tolist() == [[28, 3, 38, 23], [0, 20, 10, 30]]


def test_coco_dataset__areas_follow_their_boxes(data):
    _, target = CocoDataset(data, IDS, compose([v2.Resize([60, 80])]))[0]
    assert target["boxes"].tolist() == [[4, 6, 24, 46], [60, 40, 80, 60]]
    assert target["area"].tolist() == [200, 400]
    assert target["orig_size"] == (30, 40)


class CropLeft(v2.Transform):
    """Leaves the left half, in which the second box has no part."""

    left = 0

    def transform(self, inpt, params):
        return v2.functional.crop(inpt, 0, self.left, 30, 20)

    _transform = transform  # the name before torchvision 0.21


class CropRight(CropLeft):
    left = 20


@pytest.mark.parametrize(
    ("crop", "boxes", "fields"),
    [(CropLeft(), [[2, 3, 12, 23]], [[1], [50], [0]]), (CropRight(), [[10, 20, 20, 30]], [[0], [100], [1]])],
)
def test_coco_dataset__boxes_that_a_crop_removed_go_with_all_their_fields(data, crop, boxes, fields):
    _, target = CocoDataset(data, IDS, compose([crop]))[0]
    assert target["boxes"].tolist() == boxes
    assert [target[name].tolist() for name in ("labels", "area", "iscrowd")] == fields


@pytest.mark.parametrize(
    "transforms",
    [
        [CropLeft(), v2.SanitizeBoundingBoxes()],
        [v2.Compose([CropLeft(), v2.SanitizeBoundingBoxes(labels_getter=box_rows)])],
        [CropLeft(), v2.SanitizeBoundingBoxes(), v2.RandomHorizontalFlip(p=0)],
    ],
)
def test_coco_dataset__removing_boxes_in_a_transform_keeps_fields_in_step(data, transforms):
    _, target = CocoDataset(data, IDS, compose(transforms))[0]
    assert target["boxes"].tolist() == [[2, 3, 12, 23]]
    assert [target[name].tolist() for name in ("labels", "area", "iscrowd")] == [[1], [50], [0]]


def test_coco_dataset__removing_boxes_where_fields_cannot_follow_is_an_error(data):
    hidden = v2.Compose([CropLeft(), v2.SanitizeBoundingBoxes()])
    with pytest.raises(DataError, match=r"removed boxes without their labels.*lit_dense\.data\.box_rows"):
        CocoDataset(data, IDS, compose([hidden]))[0]


@pytest.mark.parametrize(
    ("transforms", "weights"),
    [
        (None, [0.5, 3]),
        ([v2.Resize([60, 80])], [0.5, 3]),
        ([CropLeft()], [0.5]),
        ([CropRight()], [3]),
        ([CropRight(), v2.SanitizeBoundingBoxes()], [3]),
    ],
)
def test_coco_dataset__weights_go_with_their_boxes(data, transforms, weights):
    weighed = replace(data, weight=np.array([0.5, 3], np.float32))
    dataset = CocoDataset(weighed, IDS, compose(transforms or []))
    _, target = dataset[0]
    assert target["weight"].tolist() == weights
    _, empty = dataset[1]
    assert empty["weight"].shape == (0,)
    assert target["weight"].dtype == empty["weight"].dtype == torch.float32


def test_compose__sanitize_keeps_its_arguments(data):
    _, target = CocoDataset(data, IDS, compose([v2.SanitizeBoundingBoxes(min_size=15)]))[0]
    assert len(target["boxes"]) == 0


class OtherLabels(v2.Transform):
    def forward(self, image, target):
        return image, target | {"labels": target["labels"] + 10}


def test_coco_dataset__a_transform_sees_and_may_change_labels(data):
    _, target = CocoDataset(data, IDS, compose([OtherLabels()]))[0]
    assert target["labels"].tolist() == [11, 10]


GENERATORS = {
    "torch": lambda: torch.rand(1).item(),
    "numpy": np.random.rand,
    "python": random.random,
}


class Noise(v2.Transform):
    """Draws the colour of the image from one generator."""

    def __init__(self, generator):
        super().__init__()
        self.draw = GENERATORS[generator]

    def forward(self, image, target):
        return tv_tensors.Image(torch.full_like(image, int(self.draw() * 256))), target


@pytest.mark.parametrize("generator", GENERATORS)
def test_coco_dataset__a_seed_decides_the_transforms_and_leaves_the_generators_alone(data, generator):
    dataset = CocoDataset(data, IDS, compose([Noise(generator)]))
    first = dataset[Draw(0, 5)][0]
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    assert torch.equal(dataset[Draw(0, 5)][0], first)
    assert any(not torch.equal(dataset[Draw(0, seed)][0], first) for seed in range(6, 9))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert random.getstate() == states[2]
    assert len({int(dataset[0][0].sum()) for _ in range(5)}) > 1  # without a seed the generator goes on


def test_coco_dataset__the_generators_are_put_back_after_an_error(data):
    dataset = CocoDataset(data, IDS, compose([v2.Lambda(lambda image: 1 / 0)]))
    before = torch.get_rng_state(), random.getstate()
    with pytest.raises(ZeroDivisionError):
        dataset[Draw(0, 5)]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_coco_dataset__a_replaced_file_is_named(data):
    write_image(data.folder / "1.png", width=50)
    with pytest.raises(DataError, match=r"1\.png: the image is 50 x 30, but was 40 x 30"):
        CocoDataset(data, IDS)[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_collate__batches_are_lists_of_plain_tensors(data, workers):
    loader = DataLoader(CocoDataset(data, IDS), 2, collate_fn=collate, num_workers=workers)
    images, targets = next(iter(loader))
    assert [type(image) for image in images] == [torch.Tensor] * 2
    assert [type(targets[0][name]) for name in ("boxes", "labels")] == [torch.Tensor] * 2
    assert [target["file_name"] for target in targets] == ["1.png", "2.png"]
    assert targets[0]["orig_size"] == (30, 40)


def test_collate_images__batches_have_no_boxes(data):
    dataset = CocoDataset(data, IDS)
    _, targets = collate_images([dataset[0], dataset[1]])
    assert [set(target) for target in targets] == [{"image_id", "file_name", "orig_size"}] * 2


class Shrink(v2.Transform):
    """Leaves a part of the boxes' width."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, image, target):
        target["boxes"][:, 2] = target["boxes"][:, 0] + (target["boxes"][:, 2] - target["boxes"][:, 0]) * self.factor
        return image, target


@pytest.mark.parametrize(
    ("width", "factor", "left"), [(0.6, 1, 1), (0.6, 0.8, 1), (0.6, 0.4, 0), (8, 0.1, 0), (1.2, 0.8, 1)]
)
def test_coco_dataset__a_small_box_stays_unless_a_transform_takes_half_of_it(data, width, factor, left):
    boxes = np.array([[2, 3, 2 + width, 23], [30, 20, 40, 30]], np.float32)
    _, target = CocoDataset(replace(data, boxes=boxes), IDS, compose([Shrink(factor)]))[0]
    assert (target["iscrowd"] == 0).sum() == left  # the other box is a crowd
    assert isinstance(target["boxes"], tv_tensors.BoundingBoxes)


def test_coco_dataset__an_error_in_a_worker_is_the_error_itself(data):
    path = data.folder / "1.png"
    path.write_bytes(path.read_bytes()[:1000])
    loader = DataLoader(CocoDataset(data, IDS), 2, collate_fn=collate, num_workers=1)
    with pytest.raises(DataError) as error:
        next(iter(loader))
    assert str(error.value).startswith(f"{path}: cannot be read: ")
    assert "\n" not in str(error.value)
    assert "Replace the file, or remove the image from the data." in str(error.value)


def test_coco_dataset__lists_of_a_federated_set_are_in_the_target(data):
    lists = [SimpleNamespace(row=lambda index, ids=ids: np.array(ids[index])) for ids in ([[3], []], [[7], [3, 7]])]
    samples = CocoDataset(replace(data, federated=tuple(lists)), IDS)
    found = [[target[name].tolist() for name in ("neg_labels", "not_exhaustive_labels")] for _, target in samples]
    assert found == [[[0], [1]], [[], [0, 1]]]
