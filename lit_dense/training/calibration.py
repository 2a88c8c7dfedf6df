"""Fit of a calibrator to the validation detections of a checkpoint, which ``lit-dense calibrate`` runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from ..calibrators import Calibrator, StoredDetections
from ..core.class_counts import ClassCounts
from ..core.errors import UsageError
from ..data import CocoDataModule
from ..data.coco_data import CocoData
from ..detectors.attach import attached
from ..metrics import DetectionMAP
from ..metrics.calibration import Reliability, reliability, true_positives
from ..metrics.detection_table import DETECTION, DetectionTable
from .checkpoint_content import replace_state
from .lit_detector import LitDetector

LEAST_SCORE = 1e-4
"""Smallest score of a stored detection."""
SHOWN = ("map", "map_50", "map_rare", "map_common", "map_frequent")


@dataclass(frozen=True)
class CalibrationReport:
    """Results before and after calibration.

    Args:
        calibrator: The fitted calibrator.
        before: Numbers of the evaluation without calibration.
        after: Numbers with calibration.
        curves: Reliability curves without and with calibration.
        score_thresh: Smallest score of a detection that the evaluation counts.
        path: The checkpoint that was written.
        note: What the numbers differ from; empty if nothing.
    """

    calibrator: Calibrator
    before: dict[str, float]
    after: dict[str, float]
    curves: tuple[Reliability, Reliability]
    score_thresh: float
    path: Path
    note: str = ""

    @property
    def text(self) -> str:
        """A table of AP, calibration error and reliability before and after."""
        spec = self.calibrator.spec
        arguments = {name: value for name, value in spec["init_args"].items() if not isinstance(value, list)}
        lines = [f"{spec['class_path']}: " + ", ".join(f"{name}={value:g}" for name, value in arguments.items())]
        lines.append(f"{'':14}{'before':>8}{'after':>8}")
        shown = [name for name in SHOWN if name in self.before]
        lines += [f"{name:14}{_number(self.before[name])}{_number(self.after[name])}" for name in shown]
        lines.append(f"{'ece':14}{_number(self.curves[0].error)}{_number(self.curves[1].error)}")
        columns = 2 * "   count precision   score "
        lines += ["", f"{'reliability:':14}{'before':27}after", f"{'score':14}{columns}".rstrip()]
        for index in range(len(self.curves[0].counts)):
            cells = [
                f"{int(c.counts[index]):8d}{c.precision[index]:10.3f}{c.scores[index]:8.3f} "
                if c.counts[index]
                else f"{0:8d}{'-':>10}{'-':>8} "
                for c in self.curves
            ]
            lines.append(f"{index / 10:.1f} to {(index + 1) / 10:.1f}    {''.join(cells)}".rstrip())
        if not self.curves[1].counts.sum():
            lines += ["", f"No calibrated score reaches {self.score_thresh:g}. Lower --model.eval_score_thresh."]
        return "\n".join([*lines, *([""] if self.note else []), self.note, f"Written to {self.path}"])


def _number(value: float) -> str:
    """Format a number; -1 means that there is none, because no class has objects or there are no detections."""
    return f"{'-':>8}" if value == -1 else f"{value:8.4f}"


def calibrate(
    trainer: Trainer,
    module: LitDetector,
    datamodule: CocoDataModule,
    ckpt_path: str | Path,
    calibrator: Calibrator,
    output: str | Path | None = None,
    candidates: int = 1000,
) -> CalibrationReport:
    """Fit a calibrator to the validation set, and write a checkpoint that contains it.

    The network runs once over the validation set, without a calibrator. Its detections are stored, more of them than an
    evaluation counts, because calibration changes which ones are the best of an image. The rest works on the stored
    detections. Nothing is trained.

    Args:
        trainer: The trainer, with one process.
        module: The detector.
        datamodule: Data with training and validation set.
        ckpt_path: Checkpoint to calibrate.
        calibrator: The calibrator; its numbers are replaced by the fitted ones.
        output: Checkpoint to write; by default that of ``ckpt_path`` with ``-calibrated`` before the suffix.
        candidates: Number of detections of an image to store.

    Raises:
        UsageError: If there are several processes, the output is a folder, the detector's scores are not those of
            classes only, or the calibrator has nothing to fit.
    """
    if trainer.world_size > 1:
        raise UsageError("calibrate needs all detections on one process: set --trainer.devices=1.")
    source = Path(ckpt_path)
    written = source.with_name(f"{source.stem}-calibrated{source.suffix}") if output is None else Path(output)
    if written.is_dir():
        raise UsageError(f"--output={written} is a folder: give a file, such as --output={written / source.name}.")
    datamodule.prepare_data()
    datamodule.setup("fit")
    module.criterion.calibrates = False
    rules, topk = module.evaluation, module.topk_candidates
    module.evaluation = replace(rules, score_thresh=min(rules.score_thresh, LEAST_SCORE), detections_per_img=candidates)
    module.topk_candidates = max(topk, candidates)
    if "model" in module._modules:
        module.limit_detections()
    trainer.validate(module, datamodule, ckpt_path=str(source), verbose=False)
    module.criterion.calibrates = True
    module.evaluation, module.topk_candidates = rules, topk
    module.limit_detections()
    _check_scores(module)
    metric = module.val_map
    assert isinstance(metric, DetectionMAP)
    table = metric.evaluation and metric.evaluation.rows
    if not table:
        raise UsageError("calibrate: the validation set gave no detections to calibrate with.")
    stored = _Stored(table, module, metric)
    data = datamodule.data["train"]
    detections, is_true = true_positives(table, metric.protocol == "lvis")
    counts = _in_columns(datamodule.class_counts, module)
    fitted = calibrator.fitted(
        StoredDetections(
            logits=torch.from_numpy(stored.logits)[detections],
            columns=stored.columns[detections],
            is_true=torch.from_numpy(is_true),
            counts=counts.instances.double(),
            frequencies=counts.frequencies,
            centres=_centres(data, datamodule, module),
            mean_ap=stored.mean_ap,
        )
    )
    fitted.prepare_all(module.num_classes or 0)
    plain, changed = stored.with_calibrator(None), stored.with_calibrator(fitted)
    curves = stored.reliability(plain), stored.reliability(changed)
    numbers = stored.numbers(plain), stored.numbers(changed)
    note = ""
    if topk < candidates:
        note = (
            f"topk_candidates={topk} is less than --candidates={candidates}: here each pyramid level has more "
            "detections than in an evaluation, whose numbers differ."
        )
    report = CalibrationReport(fitted, *numbers, curves, rules.score_thresh, written, note)
    _write(source, written, fitted)
    return report


class _Stored:
    """Detections of an evaluation, whose scores can be replaced."""

    def __init__(self, table: DetectionTable, module: LitDetector, metric: DetectionMAP) -> None:
        self.table, self.metric, self.rules = table, metric, module.evaluation
        self.is_detection = table.kinds == DETECTION
        scores = np.where(self.is_detection, table.scores, 0.5).astype(np.float64).clip(1e-12, 1 - 1e-7)
        self.logits = np.log(scores) - np.log1p(-scores)
        columns = module.label_map.columns
        labels = torch.from_numpy(table.labels.astype(np.int64))
        self.columns = labels if columns is None else torch.tensor(columns)[labels].clamp(min=0)
        self.names = dict(enumerate(metric.class_names or map(str, range(int(labels.max()) + 1))))

    def with_calibrator(self, calibrator: Calibrator | None) -> DetectionTable:
        """Return the detections that an evaluation with a calibrator would count."""
        scores = self.table.scores
        if calibrator is not None:
            logits = calibrator.calibrated(torch.from_numpy(self.logits), self.columns)
            scores = np.where(self.is_detection, logits.sigmoid().numpy().astype(np.float32), scores)
        kept = ~self.is_detection | (scores >= np.float32(self.rules.score_thresh))
        return replace(self.table, scores=scores).where(kept).best_of_images(self.rules.detections_per_img)

    def numbers(self, rows: DetectionTable) -> dict[str, float]:
        """Evaluate detections."""
        return self.metric.evaluate_rows(rows, self.names).numbers

    def reliability(self, rows: DetectionTable) -> Reliability:
        """Compute the reliability curve of detections."""
        index, is_true = true_positives(rows, self.metric.protocol == "lvis")
        return reliability(rows.scores[index], is_true)

    def mean_ap(self, calibrator: Calibrator) -> float:
        """Compute AP with a calibrator."""
        return self.numbers(self.with_calibrator(calibrator))["map"]


def _check_scores(module: LitDetector) -> None:
    adapter = attached(module.model)
    if adapter is not None and adapter.other_score:
        raise UsageError(
            f"calibrate: {type(adapter.detector).__name__} multiplies the scores of classes by "
            f"{adapter.other_score}, so the scores of its detections do not determine them. Give the calibrator and "
            "its numbers instead, such as --model.calibrator=logit_adjustment --model.calibrator.tau=0.3."
        )


def _in_columns(counts: ClassCounts | None, module: LitDetector) -> ClassCounts:
    if counts is None:
        raise UsageError("calibrate needs the class counts of the training set: give a data module that has them.")
    columns: Sequence[int] = module.label_map.columns or range(len(counts.images))
    return counts.in_columns(columns, module.num_classes or 0)


def _centres(data: CocoData, datamodule: CocoDataModule, module: LitDetector) -> list[Tensor]:
    """Return the centres of the training boxes of each column, as fractions of the image."""
    labels = data.labels(np.array([category["id"] for category in datamodule.categories], np.int64))
    columns = module.label_map.columns
    of_boxes = labels if columns is None else np.asarray(columns)[labels]
    sizes = data.sizes[data.image_index][:, ::-1]
    centres = torch.from_numpy((data.boxes[:, :2] + data.boxes[:, 2:]) / 2 / sizes)
    kept = torch.from_numpy(np.where(data.iscrowd, -1, of_boxes))
    return [centres[kept == column] for column in range(module.num_classes or 0)]


def _write(source: Path, path: Path, calibrator: Calibrator) -> None:
    """Write a checkpoint with a calibrator."""
    checkpoint: dict[str, Any] = torch.load(source, map_location="cpu", weights_only=True)
    prefix = "criterion.calibrator."
    # with averaged weights, state_dict has the average, and current_model_state what training goes on with
    for key in {"state_dict", "current_model_state"} & checkpoint.keys():
        replace_state(checkpoint[key], prefix, calibrator)
    checkpoint.setdefault("hyper_parameters", {})["calibrator"] = calibrator.spec
    checkpoint.setdefault("lit_dense", {}).setdefault("criterion", {})["calibrator"] = calibrator.spec
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint, path)
