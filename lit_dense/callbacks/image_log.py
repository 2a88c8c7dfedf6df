"""Where pictures of a run go: a file in its folder, and every logger that takes images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Trainer
from PIL import Image


def log_picture(trainer: Trainer, picture: Image.Image, path: Path, tag: str, step: int | None = None) -> None:
    """Write a picture to a file, and hand it to the trainer's loggers that take images. For the first process.

    These are the loggers of TensorBoard, W&B, Comet and MLflow and what is derived from them; others are passed over.

    Args:
        trainer: Whose loggers.
        picture: The picture.
        path: The file; its folder is made.
        tag: The picture's name in the loggers.
        step: The step in the loggers, counted from 0 as Lightning does; by default the last of training.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    step = max(0, trainer.global_step - 1) if step is None else step
    for logger in trainer.loggers:
        names = {base.__name__ for base in type(logger).__mro__}  # the packages of the others may not be installed
        for name in sorted(names & SENDERS.keys()):
            SENDERS[name](logger, tag, picture, step)


def _to_tensorboard(logger: Any, tag: str, picture: Image.Image, step: int) -> None:
    logger.experiment.add_image(tag, np.asarray(picture.convert("RGB")), step, dataformats="HWC")


def _to_wandb(logger: Any, tag: str, picture: Image.Image, step: int) -> None:
    logger.log_image(key=tag, images=[picture], step=step)


def _to_comet(logger: Any, tag: str, picture: Image.Image, step: int) -> None:
    logger.experiment.log_image(picture, name=tag, step=step)


def _to_mlflow(logger: Any, tag: str, picture: Image.Image, step: int) -> None:
    key = tag.replace("/", ".")  # some versions store a key with a slash where it cannot be fetched
    logger.experiment.log_image(logger.run_id, picture, key=key, step=step)


SENDERS: dict[str, Callable[[Any, str, Image.Image, int], None]] = {
    "TensorBoardLogger": _to_tensorboard,
    "WandbLogger": _to_wandb,
    "CometLogger": _to_comet,
    "MLFlowLogger": _to_mlflow,
}
