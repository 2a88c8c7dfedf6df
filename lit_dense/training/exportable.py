"""Methods of a LightningModule that export its detector."""

import math
from pathlib import Path
from typing import Any

from ..export.graph import DetectionGraph
from ..export.writers import export
from .detector_steps import DetectorSteps


class Exportable(DetectorSteps):
    """A module whose detector can be exported."""

    def export_graph(self, size: tuple[int, int], nms: bool = True) -> DetectionGraph:
        """Return the detector as one traceable function, from a uint8 image of fixed size to its detections.

        Args:
            size: Height and width of the images in pixels.
            nms: Whether to apply non-maximum suppression; the input is then one image instead of a batch.

        Raises:
            UsageError: If the detector cannot be exported.
        """
        return DetectionGraph(self._adapter, size, self.score_thresh, self.detections_per_img, nms)

    @property
    def export_size(self) -> tuple[int, int]:
        """Height and width of exported input by default: the detector's fixed size, or ``min_size`` by ``max_size``."""
        transform: Any = self.model.transform
        width, height = getattr(transform, "fixed_size", None) or (transform.max_size, transform.min_size[-1])
        return int(height), int(width)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width to which the detector scales an image in evaluation.

        Args:
            height: Height of the image in pixels.
            width: Width of the image in pixels.
        """
        transform: Any = self.model.transform
        if getattr(transform, "fixed_size", None) is not None:
            return self.export_size
        factor = min(transform.min_size[-1] / min(height, width), transform.max_size / max(height, width))
        return max(1, math.floor(height * factor)), max(1, math.floor(width * factor))

    @property
    def column_names(self) -> list[str]:
        """Name of each column of the head; empty if they are unknown."""
        return [str(category["name"]) for category in self.categories or []]

    def to_onnx(self, file_path: str | Path, input_sample: Any = None, **kwargs: Any) -> None:  # type: ignore[override]
        """Write the detector to an ONNX file, from image to boxes; replaces Lightning's method, which fails on it.

        Args:
            file_path: The file.
            input_sample: An image [3, H, W] of the size that the file takes; by default :attr:`export_size`.
            kwargs: ``nms=False`` for a file that takes batches and returns candidates.

        Raises:
            UsageError: If the detector cannot be exported.
        """
        size = self.export_size if input_sample is None else tuple(input_sample.shape[-2:])
        training = self.training
        export(self.export_graph(size, **kwargs), Path(file_path), "onnx", self.column_names)
        self.train(training)
