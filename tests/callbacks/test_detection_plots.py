from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lit_dense.callbacks import DetectionPlots, detection_plots
from lit_dense.core.errors import UsageError
from tests.builders.trainers import FakeTrainer

SIDE, GAP, TOP = 480, 8, 36
"""Of a tile, between tiles, and above them."""

COLOURS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)]


def batch_of(count):
    """Images of one colour each, without objects, and what was found in them."""
    images = [torch.tensor(colour, dtype=torch.uint8).reshape(3, 1, 1).expand(3, 16, 16) for colour in COLOURS[:count]]
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    return (images, [nothing] * count), [{**nothing, "scores": torch.zeros(0)}] * count


@pytest.mark.parametrize(("num_images", "rows", "columns"), [(1, 1, 2), (2, 1, 4), (3, 2, 4), (4, 2, 4), (5, 3, 4)])
def test_detection_plots__show_objects_and_detections_of_every_image(tmp_path, num_images, rows, columns):
    callback, trainer, module = DetectionPlots(num_images), FakeTrainer(tmp_path), SimpleNamespace()
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
def test_detection_plots__error_says_what_a_validation_step_must_return(tmp_path, where):
    """On every process, for one that goes on alone would wait for the others."""
    batch, _ = batch_of(1)
    with pytest.raises(UsageError, match=r"validation_step of SimpleNamespace.*as LitRetinaNet does: \{'detections'"):
        DetectionPlots().on_validation_batch_end(
            FakeTrainer(tmp_path, **where), SimpleNamespace(), {"loss": torch.tensor(1.0)}, batch, 0
        )


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(detection_plots, "rank_zero_info", lines.append)
    return lines


def validate(callback, trainer, *scores, module=None):
    """One validation whose images have one object, and detections of these scores."""
    module = module or SimpleNamespace()
    box = torch.tensor([[2.0, 2.0, 12.0, 12.0]])
    images = [torch.zeros(3, 16, 16, dtype=torch.uint8)] * len(scores)
    targets = [{"boxes": box, "labels": torch.tensor([0])}] * len(scores)
    found = [
        {"boxes": box.expand(len(s), 4), "labels": torch.ones(len(s), dtype=torch.int64), "scores": torch.tensor(s)}
        for s in scores
    ]
    callback.on_validation_epoch_start(trainer, module)
    callback.on_validation_batch_end(trainer, module, {"detections": found}, (images, targets), 0)
    callback.on_validation_epoch_end(trainer, module)


def sheet_of(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


OBJECT, DETECTION = (0xE6, 0x9F, 0x00), (0x56, 0xB4, 0xE9)
"""The colours of the classes 0 and 1."""


def test_detection_plots__objects_are_on_the_left_and_detections_of_enough_score_on_the_right(tmp_path):
    validate(DetectionPlots(score_thresh=0.5), FakeTrainer(tmp_path), [0.9])
    sheet = sheet_of(tmp_path / "detections.png")
    left, right = (sheet[TOP:, x : x + SIDE].reshape(-1, 3).tolist() for x in (GAP, 2 * GAP + SIDE))
    assert list(OBJECT) in left
    assert list(DETECTION) in right
    assert list(DETECTION) not in left
    validate(DetectionPlots(score_thresh=0.95), FakeTrainer(tmp_path), [0.9])
    assert list(DETECTION) not in sheet_of(tmp_path / "detections.png").reshape(-1, 3).tolist()


def test_detection_plots__threshold_that_hides_everything_is_logged_once_and_at_the_end(tmp_path, said):
    callback, trainer = DetectionPlots(score_thresh=0.5), FakeTrainer(tmp_path)
    hidden = "0 of 3 detections score 0.5 or more; the best is 0.31: score_thresh=0.2 would show some"
    for _ in range(2):
        validate(callback, trainer, [0.31, 0.1], [0.2])
    assert said == [f"DetectionPlots: {hidden}."]
    callback.on_fit_end(trainer, None)
    assert said[1:] == [f"Plot of detections: {tmp_path / 'detections.png'} ({hidden})"]
    validate(callback, trainer, [0.31], [0.6])
    callback.on_fit_end(trainer, None)
    assert said[2:] == [f"Plot of detections: {tmp_path / 'detections.png'}"]
    validate(callback, trainer, [0.31])
    assert said[3:] == [f"DetectionPlots: {hidden.replace('3', '1', 1)}."]


def test_detection_plots__an_image_says_that_its_detections_are_hidden(tmp_path):
    validate(DetectionPlots(score_thresh=0.5), FakeTrainer(tmp_path), [0.31], [])
    low = slice(TOP + SIDE - 16, TOP + SIDE)
    sheet = sheet_of(tmp_path / "detections.png")[low]
    tiles = [sheet[:, GAP + k * (SIDE + GAP) : (k + 1) * (SIDE + GAP)] for k in range(4)]
    assert [bool((tile == 255).any()) for tile in tiles] == [False, True, False, False]


def test_detection_plots__without_a_validation_log_and_draw_nothing(tmp_path, said):
    callback = DetectionPlots()
    callback.on_validation_epoch_start(FakeTrainer(tmp_path), None)
    callback.on_validation_epoch_end(FakeTrainer(tmp_path), None)
    callback.on_fit_end(FakeTrainer(tmp_path), None)
    assert said == []
    assert list(tmp_path.iterdir()) == []


def test_detection_plots__steps_without_detections_and_batches_of_another_format(tmp_path):
    callback, trainer = DetectionPlots(file_name="a/b.png"), FakeTrainer(tmp_path)
    callback.on_validation_batch_end(trainer, SimpleNamespace(), torch.tensor(1.0), None, 0)  # a loss alone
    batch, found = batch_of(1)
    module = SimpleNamespace(unpack_batch=lambda given: given["inside"])
    callback.on_validation_batch_end(trainer, module, {"detections": found}, {"inside": batch}, 0)
    callback.on_validation_epoch_end(trainer, module)
    assert (tmp_path / "a" / "b.png").exists()


@pytest.mark.parametrize(("log_dir", "folder"), [("log", "log"), (None, "root")])
def test_detection_plots__go_to_the_folder_of_the_logger_or_of_the_trainer(tmp_path, log_dir, folder):
    trainer = FakeTrainer(log_dir and tmp_path / log_dir, default_root_dir=str(tmp_path / "root"))
    validate(DetectionPlots(), trainer, [0.9])
    assert [path.parent.name for path in tmp_path.rglob("*.png")] == [folder]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_images": 0}, "num_images must be at least 1, not 0"),
        ({"score_thresh": 30}, r"score_thresh must be in \[0, 1\], not 30"),
        ({"file_name": "found"}, "file_name='found' needs the suffix of an image format, such as found.png"),
    ],
)
def test_detection_plots__refuse_impossible_arguments(arguments, message):
    with pytest.raises(UsageError, match=f"DetectionPlots: {message}"):
        DetectionPlots(**arguments)
