"""``Prediction``: the detections of one image, with conversions to an image, a DataFrame and supervision."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ..callbacks.prediction_formats import COLUMNS
from ..core.optional_package import optional_package
from ..core.score_threshold import hidden_note, keep_scores
from ..data.image_files import read_image
from ..visualization.draw import draw_boxes

SHOWN_SCORE = 0.3  # as of PredictionWriter
FEW = 5  # detections that repr shows


@dataclass(frozen=True, repr=False, eq=False)
class Prediction:
    """The detections of one image, best first.

    Args:
        boxes: Boxes in pixels of the image, x1 y1 x2 y2, float32 [N, 4].
        scores: Scores, float32 [N].
        labels: Index of each detection's class in ``class_names``, int64 [N].
        class_names: Name of each class.
        path: The image file; None if the image was not read from a file.
        source: The image, uint8 or float in [0, 1] [3, H, W]; None if it is read from ``path`` again.
        shown_score: Smallest score that is drawn by default.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    class_names: Sequence[str]
    path: Path | None = None
    source: Tensor | None = None
    shown_score: float = SHOWN_SCORE

    @property
    def names(self) -> list[str]:
        """Class name of each detection [N]."""
        return [self.class_names[label] for label in self.labels.tolist()]

    @property
    def image(self) -> Tensor:
        """The image, uint8 or float in [0, 1] [3, H, W]; a file is read again."""
        if self.source is not None:
            return self.source
        if self.path is None:
            raise ValueError("The prediction has neither an image nor the path of one.")
        return read_image(self.path)

    def plot(self, score_thresh: float | None = None) -> Image.Image:
        """Draw the detections on the image, with class names and scores; small images are enlarged.

        Args:
            score_thresh: Smallest score that is drawn; by default that given to ``predict``, or else 0.3. If no
                detection has it, a note in the image says so.
        """
        threshold = self.shown_score if score_thresh is None else score_thresh
        kept = keep_scores({"boxes": self.boxes, "labels": self.labels, "scores": self.scores}, threshold)
        note = hidden_note(self.scores.tolist(), threshold)
        return draw_boxes(self.image, kept["boxes"], kept["labels"], self.class_names, kept["scores"], note=note)

    def show(self, score_thresh: float | None = None) -> None:
        """Open the drawn image in the system's image viewer.

        Args:
            score_thresh: Smallest score that is drawn, as in :meth:`plot`.
        """
        self.plot(score_thresh).show(title=self.path.name if self.path else None)

    def save(self, path: str | Path, score_thresh: float | None = None) -> Path:
        """Save the drawn image; missing folders are created.

        Args:
            path: An image file, such as ``out/photo.jpg``. For an existing folder, the file in it is named as the image
                with the suffix ``.png``.
            score_thresh: Smallest score that is drawn, as in :meth:`plot`.

        Returns:
            The file that was written.
        """
        file = Path(path)
        if file.is_dir():
            file = file / f"{self.path.stem if self.path else 'prediction'}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        self.plot(score_thresh).save(file)
        return file

    def to_dataframe(self) -> Any:
        """Convert to a pandas DataFrame with a row per detection and the columns of ``--predictions.format=csv``.

        These are ``image_path``, ``xmin``, ``ymin``, ``xmax``, ``ymax``, ``label`` (the class name) and ``score``.

        Raises:
            UsageError: If pandas is not installed.
        """
        pandas = optional_package("pandas", "Prediction.to_dataframe")
        columns = [str(self.path or "")] * len(self), *self.boxes.T.tolist(), self.names, self.scores.tolist()
        return pandas.DataFrame(dict(zip(COLUMNS, columns, strict=False)))

    def to_supervision(self) -> Any:
        """Convert to ``supervision.Detections``; ``data["class_name"]`` has the class names.

        Raises:
            UsageError: If supervision is not installed.
        """
        supervision = optional_package("supervision", "Prediction.to_supervision")
        return supervision.Detections(
            xyxy=self.boxes.numpy(),
            confidence=self.scores.numpy(),
            class_id=self.labels.numpy(),
            data={"class_name": np.array(self.names, dtype=str)},
        )

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        shown = [f"{name} {score:.2f}" for name, score in zip(self.names[:FEW], self.scores.tolist(), strict=False)]
        more = ["..."] if len(self) > FEW else []
        best = f": {', '.join(shown + more)}" if shown else ""
        return f"Prediction({self.path or 'image'}: {len(self)} detections{best})"

    def _repr_png_(self) -> bytes:
        """Return the drawn image for notebooks."""
        buffer = io.BytesIO()
        self.plot().save(buffer, format="PNG")
        return buffer.getvalue()
