"""Writes predictions as COCO results, and as pictures when asked."""

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
    """Writes the predictions of all processes into one file of COCO results, each image once.

    A result has ``image_id``, ``file_name``, ``category_id``, ``bbox`` (x, y, width, height in pixels of the original
    image) and ``score``. Category ids are those of the annotation file that is predicted on; detections of classes that
    it does not have are left out. Where only images are given, category ids are those of the training data. Of
    several loaders the second has a file and a folder of its own, with names that end in ``_dataloader_idx_1``.

    A picture that cannot be drawn or written is told of at the end, after the predictions were written.

    Args:
        path: The file, in the folder of the run if it is relative; folders are made. A name without a suffix gets
            ``.json``; in a folder that exists, or if it ends in a slash, the file is ``predictions.json``.
        pictures: Whether to draw each image's detections, into a folder with the file's name without its suffix.
        score_thresh: Smallest score drawn; the file holds whatever the model predicts.

    Raises:
        UsageError: If ``score_thresh`` is not between 0 and 1; before prediction begins, if the file or the folder of
            pictures cannot be written; and for predictions that do not tell their ``image_id``.
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
        """Start anew, and find out where to write; asking for log_dir is a collective, so all processes ask, once."""
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
        """Keep the results of a batch, and draw its pictures."""
        categories = label_categories(pl_module)
        unpack = getattr(pl_module, "unpack_batch", None)
        images, _ = unpack(batch) if unpack else batch
        for image, found in zip(images, prediction, strict=True):
            if "image_id" not in found:
                raise UsageError(
                    "PredictionWriter: a prediction has no image_id, by which the file tells images apart; give each "
                    f"target one. It has {', '.join(found)}."
                )
            place = dataloader_idx, int(found["image_id"])
            self._repeated += place in self._results
            self._results[place] = _coco_results(found, categories)
            if self.pictures:
                self._draw(image, found, [c["name"] for c in categories or []], dataloader_idx)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather what the processes hold and write it."""
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
                f"{repeated} images had an image_id that came before: of each id only the last image is in the file."
            )
        self._say_what_is_missing([row["score"] for rows in gathered.values() for row in rows], failures, pl_module)

    def _say_what_is_missing(self, scores: list[float], failures: list[str], pl_module: LightningModule) -> None:
        """Where the pictures are, and why there are none or nothing is in them."""
        threshold = getattr(pl_module, "score_thresh", None)
        if not scores and threshold:
            rank_zero_info(
                f"No detection reaches the model's score_thresh={threshold:g}: --model.score_thresh={threshold / 10:g} "
                "keeps those of lower scores."
            )
        if not self.pictures:
            return
        rank_zero_info(f"Pictures: {self._file.with_suffix('').resolve()}")
        if failures:
            rank_zero_warn(f"{len(failures)} pictures could not be drawn, the first of them {failures[0]}.")
        if hidden := hidden_note(scores, self.score_thresh):
            rank_zero_info(
                f"The pictures are empty: {hidden}: --predictions.score_thresh={lower_threshold(scores):g} would show "
                "some."
            )

    def _draw(self, image: Tensor, found: dict[str, Any], names: Sequence[str], loader: int) -> None:
        kept = keep_scores({name: found[name] for name in ("boxes", "labels", "scores")}, self.score_thresh)
        note = hidden_note(found["scores"].tolist(), self.score_thresh)
        folder = _of_loader(self._file, loader).with_suffix("")
        try:
            picture = draw_boxes(image, kept["boxes"], kept["labels"], names, kept["scores"], note=note)
            folder.mkdir(parents=True, exist_ok=True)
            picture.save(folder / _picture_name(found))
        except Exception as error:  # whatever it is, predictions are worth more than a picture
            self._failures.append(f"image {int(found['image_id'])}: {type(error).__name__}: {error}")

    def _find_fault(self, writes_file: bool) -> str:
        """Why this process cannot write what it will have to; empty if it can."""
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
                    return f"the pictures' folder {place} is a file"
                place.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=place).close()
        except OSError as error:
            return f"{place}: {error.strerror or error}"
        return ""


def _file_in(folder: Path, path: str) -> Path:
    """The file that a path means."""
    whole = folder / os.path.expanduser(path)  # noqa: PTH111 (pathlib's raises for users that do not exist)
    if os.path.isdir(whole) or path.endswith(("/", os.sep)):  # noqa: PTH112 (pathlib's raises for names too long)
        return whole / "predictions.json"
    return whole if whole.suffix else whole.with_name(f"{whole.name}.json")


def _of_loader(file: Path, loader: int) -> Path:
    """The file of a loader."""
    return file.with_name(f"{file.stem}_dataloader_idx_{loader}{file.suffix}") if loader else file


def _picture_name(found: dict[str, Any]) -> str:
    """The id and the image's own name, as much of it as fits into the name of a file."""
    stem = Path(found.get("file_name") or "").stem
    start = f"{int(found['image_id'])}_"
    return start + stem.encode()[: 250 - len(start)].decode(errors="ignore") + ".png"


def _write(file: Path, text: str) -> Path:
    """Writes a file, and where that has become impossible one in the folder for temporary files; says which."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    except OSError as error:
        rescued = Path(tempfile.mkdtemp(prefix="predictions_")) / file.name
        rescued.write_text(text)
        rank_zero_warn(f"{file} could not be written ({error.strerror or error}); the predictions are in {rescued}.")
        return rescued
    return file


def _coco_results(found: dict[str, Any], categories: Sequence[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """One image's detections as COCO results."""
    ids = [c["id"] for c in categories] if categories else None
    rows = zip(found["boxes"].tolist(), found["labels"].tolist(), found["scores"].tolist(), strict=True)
    return [
        {
            "image_id": int(found["image_id"]),
            "file_name": found.get("file_name"),
            "category_id": label if ids is None else ids[label],
            "bbox": [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)],
            "score": round(score, 5),
        }
        for (x1, y1, x2, y2), label, score in rows
    ]
