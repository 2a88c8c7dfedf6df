import pytest
import torch

from lit_dense.core.errors import UsageError
from lit_dense.data import Albumentations, Draw
from tests.builders.coco_files import write_noise
from tests.builders.data_modules import data_module

pytest.importorskip("albumentations")

FLIP = [{"name": "HorizontalFlip", "p": 1.0}]
RANDOM = [
    {"name": "OneOf", "transforms": [{"name": "HorizontalFlip", "p": 1.0}, {"name": "VerticalFlip", "p": 1.0}]},
    {"name": "RandomBrightnessContrast", "p": 1.0},
    {"name": "Affine", "scale": [0.5, 1.5], "p": 1.0},
]


def dataset(tmp_path, transforms, number=0):
    write_noise(tmp_path, 5)
    data = data_module(tmp_path, "train", transforms=[Albumentations(transforms)], num_workers=number)
    data.setup("fit")
    return data.train_dataloader()


def test_albumentations__boxes_follow_the_image(tmp_path):
    flipped = dataset(tmp_path, FLIP).dataset
    image, target = flipped[Draw(1, 0)]
    plain = flipped.picture(1)
    assert torch.equal(image, plain.image.flip(-1))
    x1, y1, x2, y2 = plain.boxes.unbind(1)
    torch.testing.assert_close(target["boxes"].as_subclass(torch.Tensor), torch.stack([40 - x2, y1, 40 - x1, y2], 1))
    assert target["labels"].tolist() == plain.fields["labels"].tolist()
    assert len(flipped[Draw(2, 0)][1]["boxes"]) == 0


def test_albumentations__boxes_that_leave_the_image_go_with_their_fields(tmp_path):
    cropped = dataset(tmp_path, [{"name": "Crop", "x_min": 9, "y_min": 0, "x_max": 40, "y_max": 30}]).dataset
    plain = cropped.picture(1)
    _, target = cropped[Draw(1, 0)]
    left = plain.boxes[:, 2] >= 10
    assert target["labels"].tolist() == plain.fields["labels"][left].tolist()


def test_albumentations__random_numbers_are_those_of_the_sample(tmp_path):
    def seen(loader):
        return [(int(i.long().sum()), t["boxes"].tolist()) for batch in loader for i, t in zip(*batch, strict=True)]

    alone, worker = seen(dataset(tmp_path, RANDOM)), seen(dataset(tmp_path, RANDOM, 1))
    assert alone == worker
    images = dataset(tmp_path, RANDOM).dataset
    first = images[Draw(1, 5)][0]
    assert torch.equal(images[Draw(1, 5)][0], first)
    assert not torch.equal(images[Draw(1, 6)][0], first)


def test_albumentations__mistakes_are_explained():
    with pytest.raises(UsageError, match=r"no transform 'HorizontlFlip'\. Did you mean 'HorizontalFlip'"):
        Albumentations([{"name": "HorizontlFlip"}])


def test_albumentations__a_tensor_image_is_refused(tmp_path):
    pytest.importorskip("albumentations.pytorch")
    with pytest.raises(UsageError, match="leave ToTensorV2 out"):
        dataset(tmp_path, [as_tensor()]).dataset[Draw(1, 0)]


def as_tensor():
    from albumentations.pytorch import ToTensorV2

    return ToTensorV2()
