"""A callback that writes predictions in one of several formats and, optionally, as images with boxes and crops."""

import operator
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor

from ..core.distributed import Reduce
from ..core.errors import UsageError, check_choice, check_range
from ..core.score_threshold import hidden_note, keep_scores, lower_threshold
from ..data.label_map import label_categories
from ..visualization.draw import crop, draw_boxes
from .prediction_formats import (
    SUFFIXES,
    Classes,
    FormatName,
    ImagePredictions,
    check_format,
    find_other_file,
    folder_names,
    write_predictions,
)

Results = dict[tuple[int, int], ImagePredictions]
"""The detections of each image, by the index of its loader and its id."""


class PredictionWriter(BasePredictionWriter):
    """Writes the predictions of all processes into one file or folder, without repeated images.

    ``coco`` is one JSON file of results. A result has ``image_id``, ``file_name``, ``category_id``, ``bbox`` (x, y,
    width, height in pixels of the original image) and ``score``. Category ids are those of the annotation file of the
    predicted images; detections of classes that are not in the file are dropped. If only images are given, category ids
    are those of the training data. With several loaders, the second has its own file and folder, with names that end in
    ``_dataloader_idx_1``.

    ``csv`` and ``parquet`` are tables with a row for each detection: ``image_path``, ``xmin``, ``ymin``, ``xmax``,
    ``ymax``, ``label`` (the class name), ``score`` and ``image_id``. ``yolo`` is a folder with ``labels/NAME.txt`` for
    each image, whose lines are class index, centre, width and height as shares of the image, and score. ``voc`` is a
    folder with ``annotations/NAME.xml`` for each image. Both list the class names in ``classes.txt``.

    If an image cannot be drawn or saved, a warning is shown after the predictions are written.

    Args:
        path: The file, by default ``predictions`` with the suffix of the format; relative paths are inside the folder
            of the run, and folders are created. A name without a suffix gets that of the format. For an existing
            folder, or a path that ends in a slash, the file is ``predictions`` with the suffix in it. For ``yolo`` and
            ``voc``, it is the folder to write to.
        pictures: Whether to draw each image's detections, into a folder named like the file without its suffix.
        score_thresh: Smallest score drawn or cropped; the file contains all predictions of the model.
        format: ``coco``, ``yolo``, ``voc``, ``csv``, or ``parquet`` (needs pyarrow).
        crops: Whether to cut out each detection, into ``crops/CLASS`` in the folder of the images.

    Raises:
        UsageError: If ``score_thresh`` is not between 0 and 1, the format is unknown or needs a package that is not
            installed, or the path has the suffix of another format; before prediction starts, if the file or the folder
            of images cannot be written, if annotations would be replaced, or if images would be drawn into the folder
            of the predicted images; for predictions without an integer ``image_id``.
    """

    def __init__(
        self,
        path: str | None = None,
        pictures: bool = False,
        score_thresh: float = 0.3,
        format: FormatName = "coco",
        crops: bool = False,
    ) -> None:
        super().__init__(write_interval="batch")
        self.path, self.pictures, self.crops = path, pictures, crops
        self.score_thresh = check_range("PredictionWriter", "score_thresh", score_thresh, 0, 1)
        self.format = check_choice("PredictionWriter", "format", format, get_args(FormatName))
        check_format(format, path)
        self._start(self._place(Path()))

    def _start(self, file: Path) -> None:
        self._file = file
        self._results: Results = {}
        self._repeated = 0
        self._failures: list[str] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the results and set the output path; log_dir is a collective, so all processes call it, once."""
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        reduce = Reduce()
        self._start(reduce.gather_objects(self._place(folder))[0])
        sources = getattr(getattr(trainer, "datamodule", None), "predict", None) or []
        fault = self._find_conflict(sources) if trainer.is_global_zero else ""
        faults = reduce.gather_objects(fault or self._find_fault(trainer.is_global_zero))
        if fault := next(filter(None, faults), ""):
            path = self._file if self.path is None else self.path
            raise UsageError(f"Predictions cannot be written to --predictions.path={path}: {fault}.")

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
            place = dataloader_idx, _image_id(detections)
            self._repeated += place in self._results
            self._results[place] = ImagePredictions(
                place[1],
                detections.get("file_name"),
                tuple(detections.get("orig_size", image.shape[-2:])),
                _coco_results(detections, categories),
            )
            if self.pictures or self.crops:
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
        if trainer.is_global_zero:
            self._write_all(gathered, pl_module)
            if repeated:
                rank_zero_warn(
                    f"{repeated} images had a repeated image_id: the file contains only the last image of each id."
                )
            scores = [row["score"] for image in gathered.values() for row in image.results]
            self._log_summary(scores, failures, pl_module)
        self._results = {}

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the results so far, such as those before an image that cannot be read; with one process only."""
        if self._results and trainer.world_size == 1:
            results, self._results = self._results, {}
            self._write_all(results, pl_module)
            rank_zero_warn(
                f"The run stopped at an error ({type(exception).__name__}): the file contains only the predictions of "
                f"the first {len(results)} images."
            )

    def _write_all(self, gathered: Results, pl_module: LightningModule) -> None:
        """Write the results of each loader, and log where they are."""
        classes = Classes(label_categories(pl_module))
        for loader in sorted({loader for loader, _ in gathered}) or [0]:
            images = [gathered[place] for place in sorted(gathered) if place[0] == loader]
            written = _write(self.format, _of_loader(self._file, loader, self.format in SUFFIXES), images, classes)
            number = sum(len(image.results) for image in images)
            rank_zero_info(f"{number} detections of {len(images)} images: {written.resolve()}")

    def _log_summary(self, scores: list[float], failures: list[str], pl_module: LightningModule) -> None:
        """Log the folder of the images, and the reason if there are none or no boxes are drawn."""
        threshold = getattr(pl_module, "score_thresh", None)
        if not scores and threshold:
            rank_zero_info(
                f"No detection reaches the model's score_thresh={threshold:g}: --model.score_thresh={threshold / 10:g} "
                "keeps detections with lower scores."
            )
        if not self.pictures and not self.crops:
            return
        if self.pictures:
            rank_zero_info(f"Images with detections: {self._folder().resolve()}")
        if self.crops:
            rank_zero_info(f"Crops of detections: {(self._folder() / 'crops').resolve()}")
        if failures:
            rank_zero_warn(f"{len(failures)} images could not be drawn, the first of them {failures[0]}.")
        if hidden := hidden_note(scores, self.score_thresh):
            rank_zero_info(
                f"No box is drawn: {hidden}: --predictions.score_thresh={lower_threshold(scores):g} would show some."
            )

    def _draw(self, image: Tensor, detections: dict[str, Any], names: Sequence[str], loader: int) -> None:
        kept = keep_scores({name: detections[name] for name in ("boxes", "labels", "scores")}, self.score_thresh)
        note = hidden_note(detections["scores"].tolist(), self.score_thresh)
        folder = self._folder(loader)
        try:
            if self.pictures:
                drawn = draw_boxes(image, kept["boxes"], kept["labels"], names, kept["scores"], note=note)
                folder.mkdir(parents=True, exist_ok=True)
                drawn.save(folder / _image_name(detections))
            if self.crops:
                self._crop(image, kept, folder / "crops", names, _image_name(detections))
        except Exception as error:  # no error of drawing may lose the predictions
            self._failures.append(f"image {int(detections['image_id'])}: {type(error).__name__}: {error}")

    def _crop(self, image: Tensor, kept: dict[str, Tensor], folder: Path, names: Sequence[str], file_name: str) -> None:
        """Save each detection as an image in the folder of its class."""
        classes, name = folder_names(names), Path(file_name)
        for number, (box, label) in enumerate(zip(kept["boxes"], kept["labels"].tolist(), strict=True), start=1):
            own = folder / (classes[label] if classes else str(label))
            own.mkdir(parents=True, exist_ok=True)
            crop(image, box).save(own / f"{name.stem}_{number}{name.suffix}")

    def _place(self, folder: Path) -> Path:
        """Return the file to write, or the folder of ``yolo`` and ``voc``."""
        suffix = SUFFIXES.get(self.format)
        if self.path is None:
            return folder / f"predictions{suffix or ''}"
        return _file_in(folder, self.path, suffix) if suffix else folder / _expanded(self.path)

    def _folder(self, loader: int = 0) -> Path:
        """Return the folder of a loader's images."""
        place = _of_loader(self._file, loader, self.format in SUFFIXES)
        return place.with_suffix("") if self.format in SUFFIXES else place

    def _find_conflict(self, sources: Sequence[str | Path]) -> str:
        """Return why writing would replace annotations, or draw among the images; empty if it would not.

        Args:
            sources: Files and folders of the images.
        """
        try:
            other = find_other_file(self.format, self._file)
        except OSError:  # _find_fault says why
            return ""
        if other is not None:
            return f"{other} would be replaced, and does not look like predictions; choose another path"
        if not self.pictures and not self.crops:
            return ""
        folder = self._folder().resolve()
        for source in map(Path, [sources] if isinstance(sources, str | Path) else sources):
            images = (source if source.is_dir() else source.parent).resolve()
            if folder == images or (source.is_dir() and images in folder.parents):
                return (
                    f"drawn images would go into {folder}, among the images of {source}, and the next run would detect "
                    "objects in them; choose a path outside of this folder"
                )
        return ""

    def _find_fault(self, writes_file: bool) -> str:
        """Return the reason why this process cannot write its files; empty if it can."""
        place = self._file.parent
        try:
            place.mkdir(parents=True, exist_ok=True)
            if writes_file and self.format not in SUFFIXES:
                place = self._file
                place.mkdir(exist_ok=True)
                tempfile.TemporaryFile(dir=place).close()
            elif writes_file:
                place, is_new = self._file, not self._file.exists()
                with place.open("a"):
                    pass
                if is_new:
                    place.unlink(missing_ok=True)
            if self.pictures or self.crops:
                place = self._folder()
                if place.exists() and not place.is_dir():
                    return f"the images' folder {place} is a file"
                place.mkdir(parents=True, exist_ok=True)
                tempfile.TemporaryFile(dir=place).close()
        except OSError as error:
            return f"{place}: {error.strerror or error}"
        return ""


def _expanded(path: str) -> str:
    return os.path.expanduser(path)  # noqa: PTH111 (pathlib's raises for users that do not exist)


def _file_in(folder: Path, path: str, suffix: str) -> Path:
    """Resolve the argument ``path`` to a file."""
    whole = folder / _expanded(path)
    if os.path.isdir(whole) or path.endswith(("/", os.sep)):  # noqa: PTH112 (pathlib's raises for names too long)
        return whole / f"predictions{suffix}"
    return whole if whole.suffix else whole.with_name(f"{whole.name}{suffix}")


def _of_loader(place: Path, loader: int, is_file: bool) -> Path:
    """Return the file or folder of a loader."""
    stem, suffix = (place.stem, place.suffix) if is_file else (place.name, "")
    return place.with_name(f"{stem}_dataloader_idx_{loader}{suffix}") if loader else place


def _image_id(detections: dict[str, Any]) -> int:
    """Return the id of a prediction's image.

    Raises:
        UsageError: If it is not an integer.
    """
    image_id = detections["image_id"]
    try:
        return operator.index(image_id.item() if hasattr(image_id, "item") else image_id)
    except TypeError as error:
        raise UsageError(
            f"PredictionWriter: image_id must be an integer, not {image_id!r}: number the images, and give their names "
            "as file_name."
        ) from error


def _image_name(detections: dict[str, Any]) -> str:
    """Return a file name of the id and the image's name, shortened to the longest allowed name."""
    stem = Path(detections.get("file_name") or "").stem
    start = f"{int(detections['image_id'])}_"
    return start + stem.encode()[: 250 - len(start)].decode(errors="ignore") + ".png"


def _write(format: FormatName, path: Path, images: Sequence[ImagePredictions], classes: Classes) -> Path:
    """Write predictions; if that fails, write them to a temporary folder and warn with the path."""
    try:
        write_predictions(format, path, images, classes)
    except OSError as error:
        rescued = Path(tempfile.mkdtemp(prefix="predictions_")) / path.name
        write_predictions(format, rescued, images, classes)
        rank_zero_warn(f"{path} could not be written ({error.strerror or error}); the predictions are in {rescued}.")
        return rescued
    return path


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
