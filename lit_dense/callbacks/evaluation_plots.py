"""A callback that plots precision-recall curves and the confusion matrix."""

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from ..core.errors import UsageError
from ..core.score_threshold import hidden_note
from ..metrics import DetectionMAP, Evaluation
from ..metrics.detection_table import DETECTION
from .image_log import log_picture


class EvaluationPlots(Callback):
    """Plots precision-recall curves and the confusion matrix after every validation.

    Two files in the folder of the run are replaced each time. ``precision_recall.png`` has the curves at IoU .5 of at
    most twelve classes (the six with the highest and the six with the lowest AP) and the mean over all classes. A class
    without ground truth has no curve. ``confusion.png`` has at most twenty classes, those most often confused. Loggers
    that accept images get the plots as ``evaluation/precision_recall`` and ``evaluation/confusion``. The callback works
    with every module that contains a ``DetectionMAP`` and computes it in validation; if there are several, the first is
    used. The first process draws, without communication.

    Args:
        save_rows: Whether to also save the evaluated data as ``evaluation.npz``, for ``DetectionTable.load``.

    Raises:
        UsageError: When validation starts, if the module contains no ``DetectionMAP``.
    """

    def __init__(self, save_rows: bool = False) -> None:
        self.save_rows = save_rows
        self._before: list[Evaluation | None] = []

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember earlier evaluations, which may be of other data."""
        metrics = _metrics(pl_module)
        if not metrics:
            raise UsageError(
                f"EvaluationPlots: {type(pl_module).__name__} has no DetectionMAP. Create one in its constructor, "
                "update it in validation_step and compute it in on_validation_epoch_end."
            )
        self._before = [metric.evaluation for metric in metrics]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the new evaluation."""
        if trainer.sanity_checking:
            return
        folder = Path(trainer.log_dir or trainer.default_root_dir)  # log_dir is a collective: all processes call it
        evaluations = [metric.evaluation for metric in _metrics(pl_module)]
        new = [now for now in evaluations if now is not None and all(now is not before for before in self._before)]
        if new and trainer.is_global_zero:
            self._draw(trainer, folder, new[0])

    def _draw(self, trainer: Trainer, folder: Path, evaluation: Evaluation) -> None:
        from ..visualization.figures import (  # matplotlib is slow to import
            confusion_figure,
            precision_recall_figure,
            to_picture,
        )

        names, rows = evaluation.class_names, evaluation.rows
        scores = rows.of(DETECTION).scores.tolist() if rows is not None else []
        note = hidden_note(scores, evaluation.confusion_score)
        figures = {
            "precision_recall": precision_recall_figure(evaluation.precision_50, evaluation.ap_50, names),
            "confusion": confusion_figure(evaluation.confusion, names, evaluation.confusion_score, note),
        }
        for name, figure in figures.items():
            log_picture(trainer, to_picture(figure), folder / f"{name}.png", f"evaluation/{name}")
        if self.save_rows and rows is not None:
            rows.save(folder / "evaluation.npz")


def _metrics(pl_module: LightningModule) -> list[DetectionMAP]:
    return [module for module in pl_module.modules() if isinstance(module, DetectionMAP)]
