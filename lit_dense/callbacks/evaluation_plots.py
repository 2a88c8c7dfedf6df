"""Pictures of how good a detector is, class by class."""

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from ..core.errors import UsageError
from ..core.score_threshold import hidden_note
from ..metrics import DetectionMAP, Evaluation
from ..metrics.detection_table import DETECTION
from .image_log import log_picture


class EvaluationPlots(Callback):
    """Draws precision over recall and the confusion of classes after every validation.

    Two files in the folder of the run are renewed each time: ``precision_recall.png``, at IoU .5, with at most twelve
    classes, half of most and half of least AP, and the mean of all; and ``confusion.png``, of more than twenty classes
    the twenty that are confused most. Loggers that take images get them as ``evaluation/precision_recall`` and
    ``evaluation/confusion``. For every module that holds a ``DetectionMAP`` which its validation computes; of several
    the first. A class without ground truth has no curve. The first process draws; nothing is gathered for it.

    Args:
        save_rows: Whether to write what was evaluated too, as ``evaluation.npz``, which ``DetectionTable.load`` reads.

    Raises:
        UsageError: When validation begins, if the module holds no ``DetectionMAP``.
    """

    def __init__(self, save_rows: bool = False) -> None:
        self.save_rows = save_rows
        self._before: list[Evaluation | None] = []

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what was evaluated before, on other data perhaps."""
        metrics = _metrics(pl_module)
        if not metrics:
            raise UsageError(
                f"EvaluationPlots: {type(pl_module).__name__} holds no DetectionMAP. Make one in its constructor, "
                "update it in validation_step and compute it in on_validation_epoch_end."
            )
        self._before = [metric.evaluation for metric in metrics]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw what is new."""
        if trainer.sanity_checking:
            return
        folder = Path(trainer.log_dir or trainer.default_root_dir)  # asking for log_dir is a collective: all ask
        found = [metric.evaluation for metric in _metrics(pl_module)]
        new = [now for now in found if now is not None and all(now is not before for before in self._before)]
        if new and trainer.is_global_zero:
            self._draw(trainer, folder, new[0])

    def _draw(self, trainer: Trainer, folder: Path, evaluation: Evaluation) -> None:
        from ..visualization.figures import (  # matplotlib takes its time to load
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
