"""The steps of ``lit-dense analyze``: validate a checkpoint, find its errors, and write the page."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from torch import Tensor

from ..._version import __version__
from ...core.errors import UsageError
from ...data import CocoDataModule
from ...metrics import DetectionMAP
from ...metrics.detection_table import DETECTION
from ...training import LitDetector
from ...visualization.page import Table
from .errors import DASH, Errors, find_errors, summary
from .loss import LossObserver
from .page import render
from .pictures import ReadImage, false_positives, misses

FILE = "analysis.html"


def analyze(
    trainer: Trainer, module: LitDetector, datamodule: CocoDataModule, ckpt_path: str, output: str | Path | None = None
) -> str | None:
    """Write a page about the errors of a checkpoint on the validation set.

    The validation runs on all processes; the first one writes.

    Args:
        trainer: The trainer.
        module: A module with the arguments of the checkpoint.
        datamodule: Data with a validation set.
        ckpt_path: The checkpoint.
        output: The page; by default ``analysis.html`` beside the checkpoint.

    Returns:
        What was found and where it is; None on other processes than the first.

    Raises:
        UsageError: If there are no validation images, or the page cannot be written there.
    """
    path = _path(ckpt_path, output)
    observer = LossObserver()
    trainer.callbacks.append(observer)  # type: ignore[attr-defined]  # a property without a type
    trainer.validate(module, datamodule, ckpt_path=ckpt_path, verbose=False)
    if not trainer.is_global_zero:
        return None
    metric = module.val_map
    assert isinstance(metric, DetectionMAP)
    evaluation = metric.evaluation
    if evaluation is None or evaluation.rows is None or not len(evaluation.rows.image_ids):
        raise UsageError("analyze: there are no validation images. Give data with a validation set.")
    errors = find_errors(evaluation.rows, evaluation, metric.protocol, metric.max_detections)
    read = image_reader(trainer)
    galleries = {"False positives": false_positives(errors, read), "Missed objects": misses(errors, read)}
    title = f"Errors of {Path(ckpt_path).name}"
    page = render(errors, galleries, observer.figure(module), observer.images, title, _facts(errors, module, ckpt_path))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    costs = errors.tide.costs
    lines = [f"{name:16}{cost:6.3f}" for name, cost in costs.items()]
    return "\n".join([summary(errors), f"{'type of error':16}AP50 gained by fixing it", *lines, f"Written to {path}"])


def _path(ckpt_path: str, output: str | Path | None) -> Path:
    """Return the path of the page; before the validation, because a mistake in it should not cost that time."""
    if output is None:
        checkpoint = Path(ckpt_path)
        return checkpoint.with_name(FILE) if checkpoint.exists() else Path(FILE)
    path = Path(output)
    if path.is_dir():
        raise UsageError(f"analyze: output must be a file, such as {path / FILE}, not the folder {path}.")
    return path


def image_reader(trainer: Trainer) -> ReadImage:
    """Return a function that reads a validation image by its id.

    Args:
        trainer: A trainer that has validated.
    """
    loaders: Any = trainer.val_dataloaders
    dataset = (loaders[0] if isinstance(loaders, list) else loaders).dataset
    index = {int(image_id): number for number, image_id in enumerate(dataset.data.image_ids)}

    def read(image_id: int) -> Tensor | None:
        if image_id not in index:
            return None
        image: Tensor = dataset.picture(index[image_id]).image
        return image

    return read


def _facts(errors: Errors, module: LitDetector, ckpt_path: str) -> Table:
    """Return the table of what was analyzed, and by what."""
    spec: Any = module.criterion.spec
    losses = [str(spec[name]["class_path"]) for name in ("loss", "box_loss") if spec.get(name)]
    rows, rules = errors.rows, module.evaluation
    facts = {
        "checkpoint": str(Path(ckpt_path).resolve()),
        "model": f"{module.detector_name}, losses {', '.join(losses)}, step {module.criterion.step:,}",
        "classes": f"{len(errors.evaluation.class_names):,}",
        "images": f"{len(rows.image_ids):,}",
        "detections": f"{int((rows.kinds == DETECTION).sum()):,} of score {rules.score_thresh:g} or more",
        "lit-dense": __version__,
    }
    return Table(["", ""], [[name, value or DASH] for name, value in facts.items()])
