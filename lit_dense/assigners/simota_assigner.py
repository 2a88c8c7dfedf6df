"""Simplified optimal transport assignment, SimOTA (https://arxiv.org/abs/2107.08430), as an assigner."""

import torch
from torch import Tensor

from ..core.errors import UsageError, check_range
from ..functional.matching import gt_chunks
from ..functional.simota import centres_near, simota_match
from .base import Assigner, AssignInput, Assignment


class SimOTAAssigner(Assigner):
    """Simplified optimal transport assignment, SimOTA (https://arxiv.org/abs/2107.08430): the anchors of lowest cost.

    The candidates are the anchors whose centre is near that of an object, at most ``radius`` cells in x and y. The cost
    of a candidate is the cross-entropy of its scores plus ``iou_weight`` times the negative logarithm of the IoU of its
    predicted box. An object gets as many positives as the sum of its largest IoUs, at least one. The soft target of a
    positive is its IoU. All others are background; no anchor is ignored.

    Args:
        radius: Largest distance of the centres in cells, above 0.
        iou_weight: Weight of the box cost, at least 0.
        number: Number of largest IoUs that are added up to the number of positives of an object, at least 1.
        soft_targets: Whether to give soft targets; False for a loss that does not use them.

    Raises:
        UsageError: If an argument is out of range, or if the detector provides no predictions or no sizes of its
            levels.
    """

    needs_predictions = True

    def __init__(
        self, radius: float = 1.5, iou_weight: float = 3.0, number: int = 10, soft_targets: bool = True
    ) -> None:
        super().__init__()
        self.radius = check_range("simota", "radius", radius, 1e-6)
        self.iou_weight = check_range("simota", "iou_weight", iou_weight, 0)
        self.number = int(check_range("simota", "number", number, 1))
        self.soft_targets = soft_targets
        if soft_targets:
            self.exclusive = self.exclusive | {"soft_targets"}

    def forward(self, image: AssignInput) -> Tensor | Assignment:
        """Match anchors: the index of each anchor's ground truth, -1 background [K], and the soft targets [K]."""
        if image.geometry is None or image.gt_labels is None:
            raise UsageError(
                "simota: this detector does not provide the sizes of its levels and the labels of its objects: choose "
                "another assigner."
            )
        centres, gt_boxes = image.centres, image.gt_boxes.float()
        strides = image.geometry.strides(image.anchors.float())
        is_candidate = torch.zeros(len(centres), dtype=torch.bool, device=centres.device)
        for rows in gt_chunks(len(centres), len(gt_boxes)):
            is_candidate |= centres_near(centres, strides, gt_boxes[rows], self.radius).any(0)
        candidates = is_candidate.nonzero().squeeze(1)
        near = centres_near(centres[candidates], strides[candidates], gt_boxes, self.radius)
        found, ious = simota_match(
            image.scores[candidates],
            image.boxes[candidates],
            near,
            gt_boxes,
            image.gt_labels,
            self.iou_weight,
            self.number,
        )
        matched = torch.full((len(centres),), -1, device=centres.device).index_put((candidates,), found)
        if not self.soft_targets:
            return matched
        return Assignment(matched, ious.new_zeros(len(centres)).index_put((candidates,), ious))
