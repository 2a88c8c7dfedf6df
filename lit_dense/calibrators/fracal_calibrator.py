"""Fractal calibration, FRACAL (https://arxiv.org/abs/2410.11774), as a calibrator."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..core.errors import UsageError, check_range
from ..core.per_class_table import PerClassTable, numbers_of_classes
from ..functional.fracal import fracal_logits, fracal_offsets, fractal_dimension
from .base import Calibrator, StoredDetections

LEAST_FREQUENCY = 1e-6
"""Share of images of a class without objects, such as an unused column."""


class FRACALCalibrator(Calibrator):
    """Fractal calibration, FRACAL (https://arxiv.org/abs/2410.11774): raises rare classes and those in few places.

    ``score = sigmoid(x) * sigmoid(x + offset)``. The offset of a class falls with its share of images, and with the
    fractal dimension of its boxes' centres: 2 for a class that fills the images uniformly, 1 for one on a line. Scores
    are about the squares of those without calibration. ``lit-dense calibrate`` computes shares and dimensions from the
    training set; nothing is searched.

    Args:
        power: Exponent of the dimensions, at least 0.
        frequencies: Share of images with each class; by default from the data module.
        dimensions: Fractal dimension of each class, 1 to 2; by default equal, so that only frequencies count.

    Raises:
        UsageError: If an argument is out of range, or if the frequencies are unknown.
    """

    def __init__(
        self, power: float = 2.0, frequencies: Sequence[float] | None = None, dimensions: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.power = check_range("fracal", "power", power, 0)
        self.frequencies = PerClassTable("fracal", "frequencies", "frequencies", frequencies, 1)
        self.dimensions = None if dimensions is None else numbers_of_classes("fracal", "dimensions", dimensions)
        for label, dimension in enumerate(self.dimensions or ()):
            check_range("fracal", f"dimensions (class {label})", dimension, 1, 2)

    def prepare(self, num_classes: int) -> None:
        """Check the number of dimensions.

        Raises:
            UsageError: If there is another number of classes.
        """
        if self.dimensions is not None and len(self.dimensions) != num_classes:
            raise UsageError(
                f"fracal: dimensions has {len(self.dimensions)} numbers, but the head has {num_classes} classes."
            )

    def calibrated(self, logits: Tensor, columns: Tensor) -> Tensor:
        """Multiply each score by that of the shifted logit [...]."""
        frequencies = self.frequencies.values.to(logits.dtype).clamp(min=LEAST_FREQUENCY)
        dimensions = torch.ones_like(frequencies)
        if self.dimensions is not None:
            dimensions = torch.tensor(self.dimensions, dtype=logits.dtype, device=logits.device)
        return fracal_logits(logits, fracal_offsets(frequencies, dimensions, self.power)[columns])

    def fitted(self, stored: StoredDetections) -> "FRACALCalibrator":
        """Compute frequencies and dimensions from the training set."""
        dimensions = [round(fractal_dimension(centres), 6) for centres in stored.centres]
        calibrator = FRACALCalibrator(self.power, stored.frequencies.tolist(), dimensions)
        calibrator.prepare_all(len(dimensions))
        return calibrator
