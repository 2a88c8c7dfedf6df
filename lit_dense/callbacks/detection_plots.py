"""Pictures of what a detector finds."""

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
from .image_log import log_picture


class DetectionPlots(Callback):
    """Draws the objects and the detections of a few validation images side by side, after every validation.

    The picture lies in the folder of the run and is renewed each time; at the end its path is logged. Loggers that take
    images get it as ``detections/picture``. For LitRetinaNet, or a module whose ``validation_step`` returns
    ``{"detections": [...]}``. Batches are images and targets, and perhaps more after them; a module with batches of
    another form has a method ``unpack_batch(batch)`` that returns images and targets.

    On several processes the first one's share of the validation set is drawn. The images are the same each time,
    for validation goes through them in order. Where no detection of an image reaches ``score_thresh``, the picture says
    so; where none of any image does, the log says which threshold would show some.

    Args:
        num_images: Images drawn, the first of the validation set.
        score_thresh: Smallest score drawn.
        file_name: Name of the picture in the folder of the run.

    Raises:
        UsageError: If ``num_images`` is below 1 or ``score_thresh`` not between 0 and 1; after the first batch, if
            ``validation_step`` returns a dictionary without ``detections``, or if the batch has another form.
    """

    def __init__(self, num_images: int = 8, score_thresh: float = 0.3, file_name: str = "detections.png") -> None:
        self.num_images = int(check_range("DetectionPlots", "num_images", num_images, 1))
        self.score_thresh = check_range("DetectionPlots", "score_thresh", score_thresh, 0, 1)
        self.file_name = file_name
        self._seen: list[tuple[Tensor, dict[str, Any], dict[str, Tensor]]] = []
        self._path: Path | None = None
        self._hidden = ""

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start anew."""
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
        """Keep the first images of the first process."""
        if not isinstance(outputs, Mapping):
            return
        if "detections" not in outputs:
            raise UsageError(
                f"DetectionPlots: what validation_step of {type(pl_module).__name__} returns has no 'detections'. "
                "LitRetinaNet returns {'detections': [...]}, for each image of the batch a dictionary of boxes, labels "
                "and scores; return the same, beside what is there."
            )
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        images, targets = _unpacked(pl_module, batch)
        room = self.num_images - len(self._seen)
        self._seen += list(zip(images, targets, outputs["detections"], strict=True))[:room]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw them."""
        folder = Path(trainer.log_dir or trainer.default_root_dir)  # asking for log_dir is a collective: all ask
        if not self._seen:
            return
        names = [c["name"] for c in label_categories(pl_module) or []]
        rows = []
        for image, target, detection in self._seen:
            found = keep_scores(detection, self.score_thresh)
            note = hidden_note(detection["scores"].tolist(), self.score_thresh)
            rows.append(
                (
                    draw_boxes(image, target["boxes"], target["labels"], names),
                    draw_boxes(image, found["boxes"], found["labels"], names, found["scores"], note=note),
                )
            )
        if len(rows) > 1 and len(rows) % 2:
            rows.append((Image.new("RGB", (1, 1), "white"),) * 2)  # the sheet is as white
        pairs = [rows[i] + rows[i + 1] for i in range(0, len(rows) - 1, 2)] or rows
        titles = ("objects", f"detections from score {self.score_thresh}") * (len(pairs[0]) // 2)
        self._path = folder / self.file_name
        log_picture(trainer, side_by_side(pairs, titles), self._path, "detections/picture")
        self._say_what_is_hidden()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say where the picture is."""
        if self._path is not None:
            hidden = f" ({self._hidden})" if self._hidden else ""
            rank_zero_info(f"Picture of detections: {self._path.resolve()}{hidden}")

    def _say_what_is_hidden(self) -> None:
        """Log, where it was not so after the last validation, that no detection is drawn."""
        scores = [score for _, _, detection in self._seen for score in detection["scores"].tolist()]
        hidden = hidden_note(scores, self.score_thresh)
        if hidden:
            hidden = f"{hidden}: score_thresh={lower_threshold(scores):g} would show some"
        if hidden and not self._hidden:
            rank_zero_info(f"DetectionPlots: {hidden}.")
        self._hidden = hidden


def _unpacked(pl_module: LightningModule, batch: Any) -> tuple[Any, Any]:
    """Images and targets of a batch."""
    if unpack := getattr(pl_module, "unpack_batch", None):
        images, targets = unpack(batch)
        return images, targets
    if not isinstance(batch, Sequence) or len(batch) < 2 or any(len(batch[0]) != len(rows) for rows in batch[:2]):
        raise UsageError(
            f"DetectionPlots: batches of {type(pl_module).__name__} are a {type(batch).__name__}, not images and "
            "targets: give it a method unpack_batch(batch) that returns a list of images and a list of targets, with "
            "boxes in pixels and labels."
        )
    return batch[0], batch[1]
