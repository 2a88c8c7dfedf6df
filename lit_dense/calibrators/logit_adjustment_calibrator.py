"""Logit adjustment after training (https://arxiv.org/abs/2007.07314), as a calibrator."""

from collections.abc import Sequence

from torch import Tensor

from ..core.errors import check_range
from ..core.per_class_table import PerClassTable
from ..functional.logit_adjustment import frequency_offsets
from .base import Calibrator, StoredDetections

LEAST_GAIN = 1e-4
"""Smallest difference of AP that counts."""


class LogitAdjustmentCalibrator(Calibrator):
    """Logit adjustment (https://arxiv.org/abs/2007.07314) after training: raises the scores of rare classes.

    ``tau`` times the logarithm of a class's number of boxes is subtracted from its logits. The mean over the classes is
    0, so that the scale of scores stays. ``lit-dense calibrate`` finds the tau of largest AP.

    Args:
        tau: Strength, at least 0; 0 changes nothing.
        counts: Number of boxes of each class in the training set; by default from the data module.

    Raises:
        UsageError: If tau is negative, or if the counts are wrong or unknown.
    """

    def __init__(self, tau: float = 0.5, counts: Sequence[float] | None = None) -> None:
        super().__init__()
        self.tau = check_range("logit_adjustment", "tau", tau, 0)
        self.counts = PerClassTable("logit_adjustment", "counts", "instances", counts)

    def calibrated(self, logits: Tensor, columns: Tensor) -> Tensor:
        """Subtract the offset of each class [...]."""
        return logits - self.tau * frequency_offsets(self.counts.values).to(logits.dtype)[columns]

    def fitted(self, stored: StoredDetections) -> "LogitAdjustmentCalibrator":
        """Find the smallest tau among 0, 0.1, ... 1 whose AP is less than ``LEAST_GAIN`` below the largest."""
        counts = stored.counts.tolist()
        candidates = [LogitAdjustmentCalibrator(tenth / 10, counts) for tenth in range(11)]
        for candidate in candidates:
            candidate.prepare_all(len(counts))
        precisions = [stored.mean_ap(candidate) for candidate in candidates]
        best = max(precisions)
        return next(c for c, ap in zip(candidates, precisions, strict=True) if ap > best - LEAST_GAIN)
