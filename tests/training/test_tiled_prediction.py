"""Prediction in tiles: the steps of the module, and what the data module gives them."""

import warnings
from pathlib import Path

import pytest
import torch

from lit_dense.core.errors import UsageError
from lit_dense.data.tiling import TILING
from lit_dense.functional.tiles import merge_tiles, tile_boxes
from lit_dense.training.tiled_prediction import predict_in_tiles
from tests.builders.coco_files import write_noise
from tests.builders.data_modules import data_module
from tests.builders.lit_modules import SmallRetinaNet
from tests.builders.two_trainers import trainer_of


class Blobs:
    """A detector of white rectangles, one in each colour channel, that notes the sizes of its groups."""

    def __init__(self):
        self.groups = []

    def __call__(self, images, targets):
        assert len(images) == len(targets)
        self.groups.append(len(images))
        return [self.found(image) for image in images]

    def found(self, image):
        rows = []
        for label, channel in enumerate(image):
            if channel.any():
                y, x = channel.nonzero(as_tuple=True)
                rows.append((int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1, label))
        table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
        return {"boxes": table[:, :4], "labels": table[:, 4].long(), "scores": torch.ones(len(table))}


def image_with(height, width, *boxes):
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    for channel, (x1, y1, x2, y2) in enumerate(boxes):
        image[channel, y1:y2, x1:x2] = 255
    return image


IMAGES = [image_with(100, 300, (10, 20, 290, 60), (60, 5, 100, 99)), image_with(50, 50, (3, 4, 20, 30))]


def test_predict_in_tiles__as_without_tiles():
    plain, tiled = Blobs(), Blobs()
    expected = predict_in_tiles(plain, IMAGES, [{}, {}])
    found = predict_in_tiles(tiled, IMAGES, [{TILING: (80, 0.2)}] * 2)
    for ours, theirs in zip(found, expected, strict=True):
        order = ours["labels"].argsort()
        assert {name: value[order].tolist() for name, value in ours.items()} == {
            name: value.tolist() for name, value in theirs.items()
        }
    assert plain.groups == [2]
    assert tiled.groups == [2] * 5 + [1]  # ten tiles and a whole image, never more at once than without tiles


def test_predict_in_tiles__only_where_the_target_says_so():
    detector = Blobs()
    found = predict_in_tiles(detector, IMAGES, [{}, {TILING: (40, 0.5)}])
    assert detector.groups == [2, 2, 1]
    assert [one["labels"].tolist() for one in found] == [[0, 1], [0]]


def test_predict_step__same_keys_and_the_merged_detections_of_the_tiles():
    torch.manual_seed(0)
    module = SmallRetinaNet(3, score_thresh=0.0, detections_per_img=20).eval()
    image = torch.randint(0, 256, (3, 96, 160), dtype=torch.uint8)
    target = {"image_id": 7, "file_name": "a.png", "orig_size": (96, 160)}
    (plain,) = module.predict_step(([image], [target]), 0)
    (whole,) = module.predict_step(([image], [{**target, TILING: (160, 0.2)}]), 0)
    (tiled,) = module.predict_step(([image], [{**target, TILING: (64, 0.25)}]), 0)
    assert list(plain) == list(whole) == list(tiled)
    assert all(torch.equal(plain[name], whole[name]) for name in ("boxes", "labels", "scores"))
    boxes = tile_boxes((96, 160), 64, 0.25)
    parts = [module([image[:, y1:y2, x1:x2]])[0] for x1, y1, x2, y2 in boxes]
    merged = merge_tiles(parts, boxes)
    assert all(torch.equal(tiled[name], merged[name]) for name in ("boxes", "labels", "scores"))
    assert 20 < len(tiled["boxes"]) < 20 * len(boxes)
    assert (tiled["image_id"], tiled["file_name"], tiled["orig_size"]) == (7, "a.png", (96, 160))


def test_data_module__whole_images_with_the_tiling(tmp_path):
    write_noise(tmp_path, 3, "val")
    data = data_module(tmp_path, "val", tile=64, tile_overlap=0.5)
    data.setup("predict")
    batches = list(data.predict_dataloader())
    assert [set(target) for _, targets in batches for target in targets] == [
        {"image_id", "file_name", "orig_size", TILING}
    ] * 3
    assert batches[0][1][0][TILING] == (64, 0.5)
    assert [list(image.shape[-2:]) for images, _ in batches for image in images] == data.data["val"].sizes.tolist()
    data.setup("validate")
    assert all(TILING not in target for _, targets in data.val_dataloader() for target in targets)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 0}, "tile must be at least 32, not 0"),
        ({"tile": 640, "tile_overlap": 1.0}, r"tile_overlap must be in \[0, 0.9\], not 1.0"),
    ],
)
def test_data_module__wrong_tiles(tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        data_module(tmp_path, **options)


def predicted(rank, folder, tile):
    """The detections of each image, by one process or by one of two."""
    data = data_module(Path(folder), "val", tile=tile, tile_overlap=0.25)
    torch.manual_seed(0)
    module = SmallRetinaNet(3, score_thresh=0.0, detections_per_img=20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batches = trainer_of(rank, folder).predict(module, data)
    return {
        target["image_id"]: [target["file_name"], *(target[name].tolist() for name in ("boxes", "labels", "scores"))]
        for batch in batches
        for target in batch
    }


@pytest.mark.ddp
@pytest.mark.parametrize("tile", [None, 32])
def test_predict__the_tiles_of_two_processes_are_those_of_one(two_processes, tmp_path, tile):
    write_noise(tmp_path, 5, "val")
    expected = predicted(None, str(tmp_path), tile)
    first, second = two_processes(predicted, str(tmp_path), tile)
    assert not first.keys() & second.keys()
    assert first | second == expected
    assert len(expected) == 5
    assert all(len(found[1]) > 0 for found in expected.values())
