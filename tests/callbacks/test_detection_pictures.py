from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lit_dense.callbacks import DetectionPictures
from lit_dense.errors import UsageError

SIDE, GAP, TOP = 480, 8, 36
"""Of a tile, between tiles, and above them."""

COLOURS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)]


def trainer_in(folder, **arguments):
    settings = {"is_global_zero": True, "sanity_checking": False, "loggers": (), "global_step": 1, **arguments}
    return SimpleNamespace(log_dir=str(folder), default_root_dir=".", **settings)


def batch_of(count):
    """Images of one colour each, without objects, and what was found in them."""
    images = [torch.tensor(colour, dtype=torch.uint8).reshape(3, 1, 1).expand(3, 16, 16) for colour in COLOURS[:count]]
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    return (images, [nothing] * count), [{**nothing, "scores": torch.zeros(0)}] * count


@pytest.mark.parametrize(("num_images", "rows", "columns"), [(1, 1, 2), (2, 1, 4), (3, 2, 4), (4, 2, 4), (5, 3, 4)])
def test_every_image_is_drawn_with_its_objects_and_its_detections(tmp_path, num_images, rows, columns):
    callback, trainer, module = DetectionPictures(num_images), trainer_in(tmp_path), SimpleNamespace()
    batch, found = batch_of(5)
    callback.on_validation_epoch_start(trainer, module)
    callback.on_validation_batch_end(trainer, module, {"detections": found}, batch, 0)
    callback.on_validation_epoch_end(trainer, module)
    with Image.open(tmp_path / "detections.png") as picture:
        sheet = np.asarray(picture.convert("RGB"))
    assert sheet.shape == (TOP + rows * (SIDE + GAP) + GAP, columns * (SIDE + GAP) + GAP, 3)
    middles = [
        [
            tuple(sheet[TOP + SIDE // 2 + row * (SIDE + GAP), SIDE // 2 + column * (SIDE + GAP)])
            for column in range(columns)
        ]
        for row in range(rows)
    ]
    shown = [colour for colour in COLOURS[:num_images] for _ in range(2)]
    empty = [(255, 255, 255)] * (rows * columns - len(shown))
    assert [colour for row in middles for colour in row] == shown + empty


@pytest.mark.parametrize(
    "where",
    [{}, {"sanity_checking": True}, {"is_global_zero": False}],
    ids=["validation", "sanity check", "other process"],
)
def test_a_validation_step_without_detections_is_told_what_to_return(tmp_path, where):
    """On every process, for one that goes on alone would wait for the others."""
    batch, _ = batch_of(1)
    with pytest.raises(UsageError, match=r"validation_step of SimpleNamespace.*LitRetinaNet returns \{'detections'"):
        DetectionPictures().on_validation_batch_end(
            trainer_in(tmp_path, **where), SimpleNamespace(), {"loss": torch.tensor(1.0)}, batch, 0
        )
