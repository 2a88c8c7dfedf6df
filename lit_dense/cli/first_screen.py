"""The first and the last screen of ``lit-dense fit``: what is trained on what, and the results with their places."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from lightning_utilities.core import rank_zero

from ..core.distributed import Reduce

OF_OTHERS = r"(lightning|lightning_fabric|pytorch_lightning|torch|torchvision|torchmetrics|jsonargparse|matplotlib)\b"
"""Modules of other packages whose deprecations do not concern the user of the command."""
HIDDEN = ("💡 Tip:", "TPU available: False", "Loading `train_dataloader` to estimate")
"""Beginnings of Lightning's log lines that do not concern the user."""
HIDDEN_WARNINGS = (
    "No seed found, seed set to",  # the next line tells the seed
    "Be aware that when using `ckpt_path`, callbacks used to create",  # evaluation needs no callbacks of training
    "Starting from v1.9.0, `tensorboardX` has been removed",  # logs are CSV files then
    r"Checkpoint directory .* exists and is not empty",  # even if it holds no checkpoint: see checkpoint_lines
)
"""Beginnings of Lightning's warnings that do not concern the user."""
MOST_CLASSES = 30  # rows of the table at the end


class _Hide(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(HIDDEN)


@contextmanager
def quiet() -> Iterator[None]:
    """Hide Lightning's tips and deprecations of other packages in this context."""
    logger, hide = rank_zero.log, _Hide()  # Lightning's functions log by it, and set it to their own logger
    logger.addFilter(hide)
    try:
        with warnings.catch_warnings():
            for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
                warnings.filterwarnings("ignore", category=category, module=OF_OTHERS)
            for beginning in HIDDEN_WARNINGS:
                warnings.filterwarnings("ignore", beginning)
            yield
    finally:
        logger.removeFilter(hide)


class FirstScreen(Callback):
    """Logs data, model, device and places before the first step, and the AP of each class at the end of ``fit``."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the summary; log_dir is a collective, so all processes ask for it."""
        folder = _folder(trainer)
        if trainer.is_global_zero:
            lines = [*data_lines(trainer), *model_lines(trainer, pl_module), *checkpoint_lines(trainer)]
            rank_zero_info("\n".join([*lines, f"results: {folder}"]))

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the evaluation of the sanity check: it is one of a few batches and untrained weights."""
        for metric in (getattr(pl_module, "val_map", None), *getattr(pl_module, "more_val_maps", ())):
            if metric is not None:
                metric.evaluation = None

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the AP of each class, the places of the results and the next command."""
        folder = _folder(trainer)
        if not trainer.is_global_zero:
            return
        evaluation = getattr(getattr(pl_module, "val_map", None), "evaluation", None)
        lines = class_table(evaluation)
        if evaluation is None and trainer.enable_validation:
            lines.append(
                f"No validation ran in {trainer.global_step:,} steps: there is no AP, and a checkpoint that monitors "
                "it is not written. Train longer, or set --trainer.val_check_interval."
            )
        lines.append(f"Logs and plots: {folder}")
        callbacks = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.best_model_path]
        if callbacks:
            best = callbacks[0].best_model_path
            lines += [f"Checkpoint: {best}", f"Next: lit-dense predict --ckpt_path={best} --data.predict=FOLDER"]
        rank_zero_info("\n".join(lines))


def data_lines(trainer: Trainer) -> list[str]:
    """Return a line for each split of a ``CocoDataModule``, and one for the classes; none for other data."""
    module: Any = getattr(trainer, "datamodule", None)
    data, categories = getattr(module, "data", None), getattr(module, "categories", None)
    if not isinstance(data, dict) or not categories:
        return []
    lines = []
    for split in ("train", "val"):
        if split in data:
            counts = data[split].offsets[1:] - data[split].offsets[:-1]
            lines.append(
                f"{split}: {len(counts):,} images, {int(counts.sum()):,} boxes, "
                f"{int((counts == 0).sum()):,} images without boxes"
            )
    line = f"classes: {len(categories)}"
    if module.class_counts is not None:
        boxes = module.class_counts.instances.tolist()
        low, high = boxes.index(min(boxes)), boxes.index(max(boxes))
        line += f", {boxes[low]:,} ({categories[low]['name']}) to {boxes[high]:,} ({categories[high]['name']}) boxes"
    return [*lines, line]


def model_lines(trainer: Trainer, module: Any) -> list[str]:
    """Return a line about the model, its loss, the device and the length of the run."""
    parameters = sum(p.numel() for p in module.parameters())
    spec = module.criterion.spec
    loss = ", ".join(str(spec[name]["class_path"]) for name in ("loss", "box_loss") if spec.get(name))
    steps = trainer.estimated_stepping_batches
    processes = f"{trainer.world_size} processes, " if trainer.world_size > 1 else ""
    return [
        f"model: {module.detector_name}, {parameters / 1e6:.1f} million parameters; losses {loss}; {processes}"
        f"{module.device}, precision {trainer.precision}; {steps:,} steps"
    ]


def checkpoint_lines(trainer: Trainer) -> list[str]:
    """Return a line for each folder of checkpoints that has some of an earlier run; none if the run resumes."""
    if trainer.ckpt_path:
        return []
    folders = [Path(c.dirpath) for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.dirpath]
    found = {folder: sorted(path.name for path in folder.glob("*.ckpt")) for folder in folders}
    return [
        f"checkpoints of an earlier run: {', '.join(names)} in {folder}" for folder, names in found.items() if names
    ]


def class_table(evaluation: Any) -> list[str]:
    """Return a table of the AP of each class in the last validation, the lowest first; empty without a validation."""
    if evaluation is None:
        return []
    rows = sorted(
        (float(ap), float(ap_50), name)
        for name, ap, ap_50 in zip(evaluation.class_names, evaluation.ap, evaluation.ap_50, strict=True)
        if ap >= 0
    )
    if not rows:
        return []
    width = max(5, *(len(name) for *_, name in rows[:MOST_CLASSES]))
    lines = [f"{'class':{width}}  {'AP':>6}  {'AP50':>6}"]
    lines += [f"{name:{width}}  {ap:6.3f}  {ap_50:6.3f}" for ap, ap_50, name in rows[:MOST_CLASSES]]
    if len(rows) > MOST_CLASSES:
        lines.append(f"and {len(rows) - MOST_CLASSES:,} classes of higher AP")
    overall = evaluation.numbers
    return [*lines, f"{'all':{width}}  {overall['map']:6.3f}  {overall['map_50']:6.3f}"]


def _folder(trainer: Trainer) -> Path:
    """Return the folder of logs and plots that the first process uses."""
    return Path(Reduce().gather_objects(trainer.log_dir or trainer.default_root_dir)[0])
