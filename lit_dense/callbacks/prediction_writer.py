"""A callback that writes predictions as COCO results and, optionally, as images with boxes."""

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor

from ..core.distributed import Reduce
from ..core.errors import UsageError, check_range
from ..core.score_threshold import hidden_note, keep_scores, lower_threshold
from ..data.label_map import label_categories
from ..visualization.draw import draw_boxes

Results = dict[tuple[int, int], list[dict[str, Any]]]
"""The detections of each image, by the index of its loader and its id."""


class PredictionWriter(BasePredictionWriter):
    """Writes the predictions of all processes into one file of COCO results, without repeated images.

    A result has ``image_id``, ``file_name``, ``category_id``, ``bbox`` (x, y, width, height in pixels of the original
    image) and ``score``. Category ids are those of the annotation file of the predicted images; detections of classes
    that are not in the file are dropped. If only images are given, category ids are those of the training data. With
    several loaders, the second has its own file and folder, with names that end in ``_dataloader_idx_1``.

    If an image cannot be drawn or saved, a warning is shown after the predictions are written.

    Args:
        path: The file; relative paths are inside the folder of the run, and folders are created. A name without a
            suffix gets ``.json``. For an existing folder, or a path that ends in a slash, the file is
            ``predictions.json`` in it.
        pictures: Whether to draw each image's detections, into a folder named like the file without its suffix.
        score_thresh: Smallest score drawn; the file contains all predictions of the model.

    Raises:
        UsageError: If ``score_thresh`` is not between 0 and 1; before prediction starts, if the file or the folder of
            images cannot be written; for predictions without an ``image_id``.
    """

    def __init__(self, path: str = "predictions.json", pictures: bool = False, score_thresh: float = 0.3) -> None:
        super().__init__(write_interval="batch")
        self.path, self.pictures = path, pictures
        self.score_thresh = check_range("PredictionWriter", "score_thresh", score_thresh, 0, 1)
        self._start(Path(path))

    def _start(self, file: Path) -> None:
        self._file = file
        self._results: Results = {}
        self._repeated = 0
        self._failures: list[str] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the results and set the output path; log_dir is a collective, so all processes call it, once."""
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        reduce = Reduce()
        self._start(reduce.gather_objects(_file_in(folder, self.path))[0])
        faults = reduce.gather_objects(self._find_fault(trainer.is_global_zero))
        if fault := next(filter(None, faults), ""):
            raise UsageError(f"Predictions cannot be written to --predictions.path={self.path}: {fault}.")

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Store the results of a batch, and draw its images."""
        categories = label_categories(pl_module)
        unpack = getattr(pl_module, "unpack_batch", None)
        images, _ = unpack(batch) if unpack else batch
        for image, detections in zip(images, prediction, strict=True):
            if "image_id" not in detections:
                raise UsageError(
                    "PredictionWriter: a prediction has no image_id, which identifies the image in the file; give each "
                    f"target one. It has {', '.join(detections)}."
                )
            place = dataloader_idx, int(detections["image_id"])
            self._repeated += place in self._results
            self._results[place] = _coco_results(detections, categories)
            if self.pictures:
                self._draw(image, detections, [c["name"] for c in categories or []], dataloader_idx)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather the results of all processes and write them."""
        gathered: Results = {}
        failures: list[str] = []
        repeated = 0
        for results, failed, again in Reduce().gather_objects((self._results, self._failures, self._repeated)):
            gathered.update(results)
            failures += failed
            repeated += again
        if not trainer.is_global_zero:
            return
        for loader in sorted({loader for loader, _ in gathered}) or [0]:
            images = {image_id: rows for (index, image_id), rows in gathered.items() if index == loader}
            rows = [row for image_id in sorted(images) for row in images[image_id]]
            written = _write(_of_loader(self._file, loader), json.dumps(rows))
            rank_zero_info(f"{len(rows)} detections of {len(images)} images: {written.resolve()}")
        if repeated:
            rank_zero_warn(
                f"{repeated} images had a repeated image_id: the file contains only the last image of each id."
            )
        self._log_summary([row["score"] for rows in gathered.values() for row in rows], failures, pl_module)

    def _log_summary(self, scores: list[float], failures: list[str], pl_module: LightningModule) -> None:
        """Log the folder of the images, and the reason if there are none or no boxes are drawn."""
        threshold = getattr(pl_module, "score_thresh", None)
        if not scores and threshold:
            rank_zero_info(
                f"No detection reaches the model's score_thresh={threshold:g}: --model.score_thresh={threshold / 10:g} "
                "keeps detections with lower scores."
            )
        if not self.pictures:
            return
        rank_zero_info(f"Images with detections: {self._file.with_suffix('').resolve()}")
        if failures:
            rank_zero_warn(f"{len(failures)} images could not be drawn, the first of them {failures[0]}.")
        if hidden := hidden_note(scores, self.score_thresh):
            rank_zero_info(
                f"No box is drawn: {hidden}: --predictions.score_thresh={lower_threshold(scores):g} would show some."
            )

    def _draw(self, image: Tensor, detections: dict[str, Any], names: Sequence[str], loader: int) -> None:
        kept = keep_scores({name: detections[name] for name in ("boxes", "labels", "scores")}, self.score_thresh)
        note = hidden_note(detections["scores"].tolist(), self.score_thresh)
        folder = _of_loader(self._file, loader).with_suffix("")
        try:
            drawn = draw_boxes(image, kept["boxes"], kept["labels"], names, kept["scores"], note=note)
            folder.mkdir(parents=True, exist_ok=True)
            drawn.save(folder / _image_name(detections))
        except Exception as error:  # no error of drawing may lose the predictions
            self._failures.append(f"image {int(detections['image_id'])}: {type(error).__name__}: {error}")

    def _find_fault(self, writes_file: bool) -> str:
        """Return the reason why this process cannot write its files; empty if it can."""
        place = self._file.parent
        try:
            place.mkdir(parents=True, exist_ok=True)
            if writes_file:
                place, is_new = self._file, not self._file.exists()
                with place.open("a"):
                    pass
                if is_new:
                    place.unlink(missing_ok=True)
            if self.pictures:
                place = self._file.with_suffix("")
                if place.exists() and not place.is_dir():
                    return f"the images' folder {place} is a file"
                place.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=place).close()
        except OSError as error:
            return f"{place}: {error.strerror or error}"
        return ""


def _file_in(folder: Path, path: str) -> Path:
    """Resolve the argument ``path`` to a file."""
    whole = folder / os.path.expanduser(path)  # noqa: PTH111 (pathlib's raises for users that do not exist)
    if os.path.isdir(whole) or path.endswith(("/", os.sep)):  # noqa: PTH112 (pathlib's raises for names too long)
        return whole / "predictions.json"
    return whole if whole.suffix else whole.with_name(f"{whole.name}.json")


def _of_loader(file: Path, loader: int) -> Path:
    """Return the file of a loader."""
    return file.with_name(f"{file.stem}_dataloader_idx_{loader}{file.suffix}") if loader else file


def _image_name(detections: dict[str, Any]) -> str:
    """Return a file name of the id and the image's name, shortened to the longest allowed name."""
    stem = Path(detections.get("file_name") or "").stem
    start = f"{int(detections['image_id'])}_"
    return start + stem.encode()[: 250 - len(start)].decode(errors="ignore") + ".png"


def _write(file: Path, text: str) -> Path:
    """Write a file; if that fails, write it to a temporary folder and warn with the path."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    except OSError as error:
        rescued = Path(tempfile.mkdtemp(prefix="predictions_")) / file.name
        rescued.write_text(text)
        rank_zero_warn(f"{file} could not be written ({error.strerror or error}); the predictions are in {rescued}.")
        return rescued
    return file


def _coco_results(detections: dict[str, Any], categories: Sequence[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Convert one image's detections to COCO results."""
    ids = [c["id"] for c in categories] if categories else None
    columns = (detections[name].tolist() for name in ("boxes", "labels", "scores"))
    return [
        {
            "image_id": int(detections["image_id"]),
            "file_name": detections.get("file_name"),
            "category_id": label if ids is None else ids[label],
            "bbox": [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(score, 5),
        }
        for (x1, y1, x2, y2), label, score in zip(*columns, strict=True)
    ]
