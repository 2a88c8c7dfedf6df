"""Saves an image to a file and sends it to every logger that accepts images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Trainer
from PIL import Image

from ..core.errors import UsageError


def check_picture_name(owner: str, name: str) -> str:
    """Return the file name of a picture after checking that its suffix is that of an image format.

    Args:
        owner: Name of the callback, for the message.
        name: The file name.

    Raises:
        UsageError: If Pillow cannot write a file with this suffix.
    """
    if Path(name).suffix.lower() not in Image.registered_extensions():
        raise UsageError(f"{owner}: file_name={name!r} needs the suffix of an image format, such as {name}.png.")
    return name


def log_picture(trainer: Trainer, image: Image.Image, path: Path, tag: str, step: int | None = None) -> None:
    """Save an image to a file, and send it to the trainer's loggers that accept images. Called on the first process.

    These are the loggers of TensorBoard, W&B, Comet and MLflow and classes derived from them; other loggers are
    skipped.

    Args:
        trainer: The trainer with the loggers.
        image: The image.
        path: The file; its folder is created.
        tag: Name of the image in the loggers.
        step: The step in the loggers, counted from 0 as in Lightning; by default the last training step.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    step = max(0, trainer.global_step - 1) if step is None else step
    for logger in trainer.loggers:
        names = {base.__name__ for base in type(logger).__mro__}  # not isinstance: packages may not be installed
        for name in sorted(names & SENDERS.keys()):
            SENDERS[name](logger, tag, image, step)


def _to_tensorboard(logger: Any, tag: str, image: Image.Image, step: int) -> None:
    logger.experiment.add_image(tag, np.asarray(image.convert("RGB")), step, dataformats="HWC")


def _to_wandb(logger: Any, tag: str, image: Image.Image, step: int) -> None:
    logger.log_image(key=tag, images=[image], step=step)


def _to_comet(logger: Any, tag: str, image: Image.Image, step: int) -> None:
    logger.experiment.log_image(image, name=tag, step=step)


def _to_mlflow(logger: Any, tag: str, image: Image.Image, step: int) -> None:
    key = tag.replace("/", ".")  # some versions cannot fetch an image whose key contains a slash
    logger.experiment.log_image(logger.run_id, image, key=key, step=step)


SENDERS: dict[str, Callable[[Any, str, Image.Image, int], None]] = {
    "TensorBoardLogger": _to_tensorboard,
    "WandbLogger": _to_wandb,
    "CometLogger": _to_comet,
    "MLFlowLogger": _to_mlflow,
}
