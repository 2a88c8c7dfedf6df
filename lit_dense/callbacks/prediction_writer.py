"""Writes predictions as COCO results, and as pictures when asked."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from ..label_map import label_categories
from ..pictures import draw_boxes, keep_scores
from ..reduce import Reduce


class PredictionWriter(BasePredictionWriter):
    """Writes the predictions of all processes into one file of COCO results, each image once.

    A result has ``image_id``, ``file_name``, ``category_id``, ``bbox`` (x, y, width, height in pixels of the original
    image) and ``score``. Category ids are those of the annotation file that is predicted on; detections of classes that
    it does not have are left out. Where only images are given, category ids are those of the training data.

    Args:
        path: The file, in the folder of the run if it is relative.
        pictures: Whether to draw each image's detections, into a folder beside the file.
        score_thresh: Smallest score drawn; the file holds whatever the model predicts.
    """

    def __init__(self, path: str = "predictions.json", pictures: bool = False, score_thresh: float = 0.3) -> None:
        super().__init__(write_interval="batch")
        self.path, self.pictures, self.score_thresh = path, pictures, score_thresh
        self._results: dict[int, list[dict[str, Any]]] = {}
        self._file = Path(path)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start anew, and learn where to write: asking for log_dir is a collective, so all ask, once."""
        self._results = {}
        self._file = Path(trainer.log_dir or trainer.default_root_dir) / self.path

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
            self._results[int(found["image_id"])] = _coco_results(found, categories)
            if self.pictures:
                kept = keep_scores({name: found[name] for name in ("boxes", "labels", "scores")}, self.score_thresh)
                names = [c["name"] for c in categories or []]
                picture = draw_boxes(image, kept["boxes"], kept["labels"], names, kept["scores"])
                folder = self._file.with_suffix("")
                folder.mkdir(parents=True, exist_ok=True)
                picture.save(folder / f"{int(found['image_id'])}_{Path(found.get('file_name', '')).stem}.png")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather what the processes hold and write it."""
        gathered: dict[int, list[dict[str, Any]]] = {}
        for results in Reduce().gather_objects(self._results):
            gathered.update(results)
        if not trainer.is_global_zero:
            return
        path = self._file
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [row for image_id in sorted(gathered) for row in gathered[image_id]]
        path.write_text(json.dumps(rows))
        rank_zero_info(f"{len(rows)} detections of {len(gathered)} images: {path.resolve()}")
        if self.pictures:
            rank_zero_info(f"Pictures: {path.with_suffix('').resolve()}")


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
