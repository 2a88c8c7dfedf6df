"""Base class of calibrators, ``Calibrator``, and the detections from which they are fitted."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.component import Component
from ..functional.precision import float32_or_wider
from ..functional.tracing import records_graph


@dataclass(frozen=True, eq=False)
class StoredDetections:
    """Detections of a validation set, and facts about the training set: what calibrators are fitted to.

    Args:
        logits: Logit of the score of each detection, float64 [D].
        columns: Column of each detection's class [D].
        is_true: Whether a detection is a true positive at IoU 0.5 [D].
        counts: Number of boxes of each class in the training set, by column [C].
        frequencies: Share of the annotated training images that contain each class, by column [C].
        centres: Centres of the training boxes of each class, as fractions of width and height [n, 2] each.
        mean_ap: Computes the AP of the stored detections with the scores of a calibrator.
    """

    logits: Tensor
    columns: Tensor
    is_true: Tensor
    counts: Tensor
    frequencies: Tensor
    centres: list[Tensor]
    mean_ap: Callable[["Calibrator"], float]


class Calibrator(Component, ABC):
    """Base class of calibrators: changes the scores of a trained detector, class by class.

    Calibrators apply in evaluation, prediction and exported models. Training does not depend on them.
    """

    _is_ready = False

    @abstractmethod
    def calibrated(self, logits: Tensor, columns: Tensor) -> Tensor:
        """Convert logits whose sigmoid is the score [...].

        Args:
            logits: Logits, float32 or wider [...].
            columns: Column of each logit's class, of a shape that broadcasts [...].
        """

    def forward(self, logits: Tensor) -> Tensor:
        """Convert the score logits of all classes [..., C]."""
        return self.calibrated(float32_or_wider(logits), torch.arange(logits.shape[-1], device=logits.device))

    def check_ready_once(self) -> None:
        """Check, before the first scores, that the calibrator has all its numbers.

        A graph that is being recorded cannot depend on the values of a table: the caller checks before it records.

        Raises:
            UsageError: If it lacks numbers.
        """
        if self._is_ready or records_graph():
            return
        for part in self.modules():
            if isinstance(part, Component):
                part.check_ready()
        self._is_ready = True

    @abstractmethod
    def fitted(self, stored: StoredDetections) -> "Calibrator":
        """Return a calibrator with the numbers that fit a validation set; this one does not change.

        Args:
            stored: Detections of the validation set, and facts about the training set.
        """
