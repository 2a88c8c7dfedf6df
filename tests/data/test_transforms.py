import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel
from torchvision import transforms as v1
from torchvision import tv_tensors
from torchvision.transforms import v2

from lit_dense.core.errors import UsageError
from lit_dense.data import CocoDataModule, DataError, default_train_transforms
from lit_dense.data.dataset import _transform
from lit_dense.data.transforms import compose

# older torchvision takes members of an enumeration alone, which jsonargparse reads by their names
WORDS = "str" in str(inspect.signature(v2.RandomAffine).parameters["interpolation"].annotation)
YAML = """
data:
  train_images: images
  train_annotations: a.json
  transforms:
    - class_path: torchvision.transforms.v2.RandomHorizontalFlip
      init_args: {p: 0.25}
    - class_path: torchvision.transforms.v2.RandomPhotometricDistort
    - class_path: torchvision.transforms.v2.RandomIoUCrop
      init_args: {min_scale: 0.5}
    - class_path: torchvision.transforms.v2.RandomAffine
      init_args: {degrees: [0, 0], scale: [0.8, 1.2], interpolation: BILINEAR}
    - class_path: torchvision.transforms.v2.ScaleJitter
      init_args: {target_size: [64, 64]}
    - class_path: torchvision.transforms.v2.RandomApply
      init_args:
        p: 0.5
        transforms:
          - class_path: torchvision.transforms.v2.ColorJitter
            init_args: {brightness: 0.3}
    - class_path: torchvision.transforms.v2.SanitizeBoundingBoxes
      init_args: {min_size: 2}
""".replace("BILINEAR", "bilinear" if WORDS else "BILINEAR")


def parse(*args):
    return LightningCLI(BoringModel, CocoDataModule, args=list(args), run=False, save_config_callback=None).datamodule


@pytest.fixture
def config(tmp_path):
    (tmp_path / "config.yaml").write_text(YAML)
    return str(tmp_path / "config.yaml")


@pytest.mark.filterwarnings("ignore")
def test_transforms__any_from_yaml_and_its_printed_config(config, tmp_path, capsys):
    given = parse("--config", config).transforms
    assert [type(t).__name__ for t in given.transforms][:3] == [
        "RandomHorizontalFlip",
        "RandomPhotometricDistort",
        "RandomIoUCrop",
    ]
    assert given.transforms[0].p == 0.25
    with pytest.raises(SystemExit):
        parse("--config", config, "--print_config")
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    again = parse("--config", str(tmp_path / "printed.yaml")).transforms
    assert str(again) == str(given)
    image = tv_tensors.Image(torch.zeros(3, 50, 60, dtype=torch.uint8))
    boxes = tv_tensors.BoundingBoxes([[5.0, 5, 30, 30]], format="XYXY", canvas_size=(50, 60))
    for transforms in (given, again):
        moved, target = transforms(image, {"boxes": boxes, "labels": torch.zeros(1), "row": torch.zeros(1)})
        assert moved.dtype == torch.uint8
        assert len(target["boxes"]) == len(target["row"])


@pytest.mark.filterwarnings("ignore")
def test_transforms__on_the_command_line():
    given = parse("--data.transforms+=torchvision.transforms.v2.RandomHorizontalFlip", "--data.transforms.p=0.1")
    assert [t.p for t in given.transforms.transforms] == [0.1]
    assert parse("--data.transforms=[]").transforms is None
    assert len(parse().transforms.transforms) == len(default_train_transforms())


@pytest.mark.filterwarnings("ignore")
def test_coco_data_module__other_arguments_on_the_command_line(config, tmp_path):
    data = parse(
        "--config", config, "--data.predict=[a.png, b]", "--data.root", str(tmp_path), "--data.labels=category_id"
    )
    assert data.predict == ["a.png", "b"]
    assert data.sources["train"].annotations == tmp_path / "a.json"
    assert data.labels == "category_id"
    assert parse("--data.predict=photos/*.jpg").predict == ["photos/*.jpg"]
    with pytest.raises(SystemExit):
        parse("--data.labels=other")


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.integers(20, 60), st.integers(20, 60))
def test_default_train_transforms__keep_the_canvas_and_boxes_within_it(seed, height, width):
    torch.manual_seed(seed)
    image = tv_tensors.Image(torch.randint(256, (3, height, width), dtype=torch.uint8))
    boxes = tv_tensors.BoundingBoxes([[2.0, 3, 12, 18]], format="XYXY", canvas_size=(height, width))
    target = {"boxes": boxes, "labels": torch.tensor([1]), "row": torch.tensor([0])}
    moved, target = compose(default_train_transforms())(image, target)
    assert moved.shape == image.shape
    assert moved.dtype == torch.uint8
    x1, y1, x2, y2 = target["boxes"][0].tolist()
    assert 0 <= x1 <= x2 <= width
    assert 0 <= y1 <= y2 <= height


def test_default_train_transforms__move_boxes_with_their_objects():
    torch.manual_seed(3)
    image = tv_tensors.Image(torch.full((3, 100, 100), 120, dtype=torch.uint8))
    image[:, 40:60, 30:60] = 255
    boxes = tv_tensors.BoundingBoxes([[30.0, 40, 60, 60]], format="XYXY", canvas_size=(100, 100))
    pipeline = v2.Compose(default_train_transforms()[:2])
    places = set()
    for _ in range(20):
        moved, target = pipeline(image, {"boxes": boxes})
        rows, columns = (moved[0] > 190).nonzero().unbind(1)
        found = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        places.add(tuple(found.tolist()))
        assert (target["boxes"][0] - found).abs().max() < 1
    assert len(places) > 5


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        (
            [v1.RandomHorizontalFlip()],
            "RandomHorizontalFlip of torchvision.transforms changes images without their boxes",
        ),
        ([v2.ToPureTensor()], "leave ToPureTensor out"),
        (["flip"], "'flip' is no transform; give objects such as"),
        ({"class_path": "flip"}, "is no transform; give objects such as"),
    ],
)
def test_compose__refuses_what_does_not_move_boxes(transforms, message):
    with pytest.raises(UsageError, match=message):
        compose(transforms)


def sample(transforms):
    data = torch.zeros(3, 40, 40, dtype=torch.uint8)
    boxes = tv_tensors.BoundingBoxes([[5.0, 5, 25, 25], [10, 20, 30, 40]], format="XYXY", canvas_size=(40, 40))
    fields = {"labels": torch.tensor([0, 1]), "area": torch.tensor([400.0, 400.0])}
    return _transform(compose(transforms), tv_tensors.Image(data), boxes, fields)


def test_compose__one_transform_needs_no_list():
    flips = [v2.RandomHorizontalFlip(1.0), v2.RandomVerticalFlip(1.0)]
    for one, listed in ((v2.Compose(flips), flips), (flips[0], flips[:1])):
        assert torch.equal(sample(one)[1], sample(listed)[1])


@pytest.mark.parametrize("box_format", ["CXCYWH", "XYWH"])
def test_coco_dataset__boxes_of_another_format_are_converted_back(box_format):
    plain, converted = sample([v2.Identity()]), sample([v2.ConvertBoundingBoxFormat(box_format)])
    assert torch.equal(plain[1], converted[1])
    assert torch.equal(plain[2]["area"], converted[2]["area"])


def test_coco_dataset__boxes_that_are_plain_tensors_are_an_error():
    def plain(image, target):
        return image, {**target, "boxes": target["boxes"].as_subclass(torch.Tensor)}

    with pytest.raises(DataError, match="A transform returned boxes as Tensor, without the size of the image"):
        sample([plain])
