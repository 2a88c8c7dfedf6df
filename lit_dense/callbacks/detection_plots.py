"""A callback that draws detections on validation images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from PIL import Image
from torch import Tensor

from ..core.errors import UsageError, check_range
from ..core.score_threshold import hidden_note, keep_scores, lower_threshold
from ..data.label_map import label_categories
from ..visualization.draw import draw_boxes, side_by_side
from .image_log import check_picture_name, log_picture


class DetectionPlots(Callback):
    """Draws ground-truth boxes and detections of a few validation images side by side, after every validation.

    The plot is saved in the folder of the run and replaced after each validation. Its path is logged at the end.
    Loggers that accept images get it as ``detections/picture``. The callback works with LitRetinaNet, and with any
    module if its ``validation_step`` returns ``{"detections": [...]}``. A batch is a sequence that begins with images
    and targets. A module with other batches needs a method ``unpack_batch(batch)`` that returns images and targets.

    With several processes, only images of the first process are drawn. The images are always the same, because
    validation does not shuffle. If no detection of an image reaches ``score_thresh``, a note is drawn on the image. If
    no detection of any image does, a lower threshold is suggested in the log.

    Args:
        num_images: Number of images, taken from the start of the validation set.
        score_thresh: Smallest score drawn.
        file_name: File name of the plot in the folder of the run.

    Raises:
        UsageError: If ``num_images`` is below 1, ``score_thresh`` not between 0 and 1, or ``file_name`` without the
            suffix of an image format; after the first batch, if ``validation_step`` returns a dictionary without
            ``detections``, or if the batch has another form.
    """

    def __init__(self, num_images: int = 8, score_thresh: float = 0.3, file_name: str = "detections.png") -> None:
        self.num_images = int(check_range("DetectionPlots", "num_images", num_images, 1))
        self.score_thresh = check_range("DetectionPlots", "score_thresh", score_thresh, 0, 1)
        self.file_name = check_picture_name("DetectionPlots", file_name)
        self._seen: list[tuple[Tensor, dict[str, Any], dict[str, Tensor]]] = []
        self._path: Path | None = None
        self._hidden = ""

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Clear the collected images."""
        self._seen = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the first images of the first process."""
        if not isinstance(outputs, Mapping):
            return
        if "detections" not in outputs:
            raise UsageError(
                f"DetectionPlots: the dictionary returned by validation_step of {type(pl_module).__name__} has no "
                "'detections'. Add the key, as LitRetinaNet does: {'detections': [...]}, with a dictionary of boxes, "
                "labels and scores for each image of the batch."
            )
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        images, targets = _unpacked(pl_module, batch)
        room = self.num_images - len(self._seen)
        self._seen += list(zip(images, targets, outputs["detections"], strict=True))[:room]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the collected images."""
        folder = Path(trainer.log_dir or trainer.default_root_dir)  # log_dir is a collective: all processes call it
        if not self._seen:
            return
        names = [c["name"] for c in label_categories(pl_module) or []]
        rows = []
        for image, target, detection in self._seen:
            kept = keep_scores(detection, self.score_thresh)
            note = hidden_note(detection["scores"].tolist(), self.score_thresh)
            rows.append(
                (
                    draw_boxes(image, target["boxes"], target["labels"], names),
                    draw_boxes(image, kept["boxes"], kept["labels"], names, kept["scores"], note=note),
                )
            )
        if len(rows) > 1 and len(rows) % 2:
            rows.append((Image.new("RGB", (1, 1), "white"),) * 2)  # invisible on the white sheet
        pairs = [rows[i] + rows[i + 1] for i in range(0, len(rows) - 1, 2)] or rows
        titles = ("objects", f"detections from score {self.score_thresh}") * (len(pairs[0]) // 2)
        self._path = folder / self.file_name
        log_picture(trainer, side_by_side(pairs, titles), self._path, "detections/picture")
        self._log_hidden()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the path of the plot."""
        if self._path is not None:
            hidden = f" ({self._hidden})" if self._hidden else ""
            rank_zero_info(f"Plot of detections: {self._path.resolve()}{hidden}")

    def _log_hidden(self) -> None:
        """Log that no detection is drawn, unless this was already so after the last validation."""
        scores = [score for _, _, detection in self._seen for score in detection["scores"].tolist()]
        hidden = hidden_note(scores, self.score_thresh)
        if hidden:
            hidden = f"{hidden}: score_thresh={lower_threshold(scores):g} would show some"
        if hidden and not self._hidden:
            rank_zero_info(f"DetectionPlots: {hidden}.")
        self._hidden = hidden


def _unpacked(pl_module: LightningModule, batch: Any) -> tuple[Any, Any]:
    """Return images and targets of a batch."""
    if unpack := getattr(pl_module, "unpack_batch", None):
        images, targets = unpack(batch)
        return images, targets
    if not isinstance(batch, Sequence) or len(batch) < 2 or any(len(batch[0]) != len(rows) for rows in batch[:2]):
        raise UsageError(
            f"DetectionPlots: a batch of {type(pl_module).__name__} is a {type(batch).__name__}, not images and "
            "targets: add a method unpack_batch(batch) to the module that returns a list of images and a list of "
            "targets with boxes in pixels and labels."
        )
    return batch[0], batch[1]
