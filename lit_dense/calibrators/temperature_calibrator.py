"""Temperature scaling (https://arxiv.org/abs/1706.04599), as a calibrator."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import UsageError, check_range
from .base import Calibrator, StoredDetections

LEAST, LARGEST, STEPS = 0.05, 20.0, 60
GOLDEN = (5**0.5 - 1) / 2


class TemperatureCalibrator(Calibrator):
    """Temperature scaling (https://arxiv.org/abs/1706.04599): divides all logits by one number.

    Scores then tell how often detections are true positives. The order of the detections does not change, and neither
    does AP, except for detections that a score threshold removes. ``lit-dense calibrate`` finds the temperature of
    lowest cross-entropy between score and true positive.

    Args:
        temperature: The divisor, above 0; values above 1 bring scores closer to 0.5.

    Raises:
        UsageError: If the temperature is not above 0.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = check_range("temperature", "temperature", temperature, 1e-6)

    def calibrated(self, logits: Tensor, columns: Tensor) -> Tensor:
        """Divide logits by the temperature [...]."""
        return logits / self.temperature

    def fitted(self, stored: StoredDetections) -> "TemperatureCalibrator":
        """Find the temperature of lowest cross-entropy, in [0.05, 20], by golden-section search.

        Raises:
            UsageError: If no detection is a true positive.
        """
        if not len(stored.logits):
            return TemperatureCalibrator(self.temperature)
        if not stored.is_true.any():
            raise UsageError(
                f"temperature: none of the {len(stored.logits):,} detections of the validation set is a true positive, "
                "so there is nothing to fit. Train longer, or check the boxes and classes of the validation set."
            )
        target = stored.is_true.double()

        def cost(log_temperature: Tensor) -> Tensor:
            return F.binary_cross_entropy_with_logits(stored.logits / log_temperature.exp(), target)

        low, high = torch.tensor([LEAST, LARGEST]).double().log()
        for _ in range(STEPS):
            left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
            low, high = (low, right) if cost(left) <= cost(right) else (left, high)
        return TemperatureCalibrator(round(float(((low + high) / 2).exp()), 6))
