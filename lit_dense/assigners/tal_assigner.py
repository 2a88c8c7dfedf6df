"""Task-aligned assignment, TAL (https://arxiv.org/abs/2108.07755), as an assigner."""

from typing import get_args

import torch
from torch import Tensor

from ..core.errors import UsageError, check_choice, check_range
from ..functional.task_alignment import Overlap, task_aligned_match
from .atss_assigner import ATSSAssigner
from .base import Assigner, AssignInput, Assignment


class TaskAlignedAssigner(Assigner):
    """Task-aligned assignment, TAL (https://arxiv.org/abs/2108.07755): anchors with a good score and a good box.

    The metric of an anchor and an object is ``score ** alpha * overlap ** beta``, of the object's class and the
    predicted box. The ``number`` anchors of largest metric with their centre inside the object are positive. Their soft
    target is the metric, scaled so that the largest target of an object is the largest overlap of its positives. The
    box loss of a positive is multiplied by its target. The losses are divided by the sum of the targets, unless a
    normalizer is given. All others are background; no anchor is ignored.

    Args:
        alpha: Exponent of the score, at least 0.
        beta: Exponent of the overlap, at least 0.
        number: Number of positives of each object, at least 1. It counts anchors: with nine anchors in a cell, as in
            RetinaNet, 13 are those of two cells.
        overlap: ``iou``; or ``ciou``, CIoU of at least 0.
        min_side: Smaller boxes are enlarged to this side in pixels for the test of centres, so that objects between
            centres get positives; at least 0.
        warmup_steps: Number of training steps in which ``atss`` matches, with targets of 1.
        soft_targets: Whether to give soft targets; False for a loss that does not use them.

    Raises:
        UsageError: If an argument is out of range, or if the detector provides no predictions.
    """

    needs_predictions = True
    weighs_boxes = True

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 6.0,
        number: int = 13,
        overlap: Overlap = "iou",
        min_side: float = 0.0,
        warmup_steps: int = 500,
        soft_targets: bool = True,
    ) -> None:
        super().__init__()
        self.alpha, self.beta = check_range("tal", "alpha", alpha, 0), check_range("tal", "beta", beta, 0)
        self.number = int(check_range("tal", "number", number, 1))
        self.overlap: Overlap = check_choice("tal", "overlap", overlap, get_args(Overlap))
        self.min_side = check_range("tal", "min_side", min_side, 0)
        self.warmup_steps = check_range("tal", "warmup_steps", warmup_steps, 0)
        self.soft_targets = soft_targets
        self.warmup = ATSSAssigner()
        if soft_targets:
            self.exclusive = self.exclusive | {"soft_targets"}
            self.default_normalizer = "soft_targets"

    def forward(self, image: AssignInput) -> Tensor | Assignment:
        """Match anchors: the index of each anchor's ground truth, -1 background [K], and the soft targets [K]."""
        if image.step < self.warmup_steps:
            matched = self.warmup(image)
            targets = torch.ones_like(matched, dtype=torch.float32)
        else:
            matched, targets = self._aligned(image)
        return Assignment(matched, targets) if self.soft_targets else matched

    def _aligned(self, image: AssignInput) -> tuple[Tensor, Tensor]:
        if image.gt_labels is None:
            raise UsageError("tal: this detector does not provide the labels of its objects: choose another assigner.")
        return task_aligned_match(
            image.scores,
            image.boxes,
            image.centres,
            image.gt_boxes.float(),
            image.gt_labels,
            self.alpha,
            self.beta,
            self.number,
            self.overlap,
            self.min_side,
        )
