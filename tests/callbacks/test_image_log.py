import io
from types import SimpleNamespace

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_dense.callbacks.image_log import log_picture

PICTURE = Image.new("RGB", (30, 20), "red")


class WandbLogger:
    """``log_image`` as in lightning.pytorch.loggers.wandb."""

    def __init__(self):
        self.calls = []

    def log_image(self, key, images, step=None, **kwargs):
        assert isinstance(images, list)
        self.calls.append((key, images[0].size, step))


class CometLogger:
    """Its experiment's ``log_image`` as in comet_ml 3.58."""

    def __init__(self):
        self.calls = []
        self.experiment = SimpleNamespace(log_image=self._log_image)

    def _log_image(self, image_data, name=None, overwrite=False, image_format="png", image_scale=1.0, step=None):
        self.calls.append((name, image_data.size, step))


class MLFlowLogger:
    """Its client's ``log_image`` as in mlflow 3.17."""

    run_id = "run"

    def __init__(self):
        self.calls = []
        self.experiment = SimpleNamespace(log_image=self._log_image)

    def _log_image(self, run_id, image, artifact_file=None, key=None, step=None, timestamp=None, synchronous=None):
        assert run_id == "run"
        assert artifact_file is None  # it excludes key and step
        self.calls.append((key, image.size, step))


class OwnWandbLogger(WandbLogger):
    """What somebody made of it."""


def trainer_with(*loggers, global_step=7):
    return SimpleNamespace(loggers=loggers, global_step=global_step)


@pytest.mark.parametrize("kind", [WandbLogger, OwnWandbLogger, CometLogger, MLFlowLogger])
def test_log_picture__loggers_get_the_image_under_the_last_step(kind, tmp_path):
    logger = kind()
    log_picture(trainer_with(logger), PICTURE, tmp_path / "a.png", "weights/picture")
    tag = "weights.picture" if kind is MLFlowLogger else "weights/picture"
    assert logger.calls == [(tag, (30, 20), 6)]


def test_log_picture__the_step_can_be_given_and_begins_at_0(tmp_path):
    logger = WandbLogger()
    log_picture(trainer_with(logger), PICTURE, tmp_path / "a.png", "tag", step=3)
    log_picture(trainer_with(logger, global_step=0), PICTURE, tmp_path / "a.png", "tag")
    assert [step for *_, step in logger.calls] == [3, 0]


def test_log_picture__tensorboard_shows_the_image(tmp_path):
    logger = TensorBoardLogger(tmp_path / "logs")
    trainer = Trainer(logger=logger, enable_checkpointing=False, accelerator="cpu", barebones=False)
    log_picture(trainer, PICTURE.convert("RGBA"), tmp_path / "a.png", "detections/picture", step=41)
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir).Reload()
    (event,) = events.Images("detections/picture")
    with Image.open(io.BytesIO(event.encoded_image_string)) as shown:
        assert (event.step, shown.size, shown.convert("RGB").getpixel((5, 5))) == (41, (30, 20), (255, 0, 0))


def test_log_picture__writes_the_file_whatever_the_loggers(tmp_path):
    loggers = [CSVLogger(tmp_path), OwnWandbLogger()]
    for number, some in enumerate([[], loggers[:1], loggers]):
        path = tmp_path / "new" / f"{number}.png"
        log_picture(trainer_with(*some), PICTURE, path, "tag")
        with Image.open(path) as written:
            assert written.size == (30, 20)
    assert len(loggers[1].calls) == 1
