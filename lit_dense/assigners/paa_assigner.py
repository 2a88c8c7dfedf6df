"""Probabilistic anchor assignment, PAA (https://arxiv.org/abs/2007.08103), as an assigner."""

import torch
from torch import Tensor

from ..core.errors import UsageError, check_range
from ..core.sample_fields import on_device
from ..functional.iou import paired_iou
from ..functional.matching import match_by_iou
from ..functional.paa import first_of_groups, ranks_in_groups, separate_by_mixture
from .base import Assigner, AssignInput


class PAAAssigner(Assigner):
    """Probabilistic anchor assignment, PAA (https://arxiv.org/abs/2007.08103): the anchors of lowest loss.

    The candidates of an object are the anchors that overlap it most, with an IoU of at least ``threshold``, and on each
    level those of lowest loss. The loss is that of the criterion, classification plus box, without weights. A mixture
    of two Gaussians is fitted to the losses of an object's candidates; those of the lower component are positive, up to
    the most likely one. All others are background; no anchor is ignored.

    Args:
        number: Number of candidates of an object on each level, at least 1.
        threshold: Smallest IoU of a candidate, in [0, 1]; the best anchors of an object are candidates at any IoU.

    Raises:
        UsageError: If an argument is out of range, or if the detector provides no losses or no sizes of its levels.
    """

    needs_predictions = True

    def __init__(self, number: int = 9, threshold: float = 0.1) -> None:
        super().__init__()
        self.number = int(check_range("paa", "number", number, 1))
        self.threshold = check_range("paa", "threshold", threshold, 0, 1)

    def forward(self, image: AssignInput) -> Tensor:
        """Match anchors: the index of each anchor's ground truth, -1 background [K]."""
        if image.geometry is None or image.losses is None:
            raise UsageError(
                "paa: this detector does not provide the losses of anchors and the sizes of its levels: choose another "
                "assigner."
            )
        anchors, gt_boxes = image.anchors.float(), image.gt_boxes.float()
        first = match_by_iou(anchors, gt_boxes, self.threshold, self.threshold)
        rows = (first >= 0).nonzero().squeeze(1)
        rows = rows[paired_iou(anchors[rows], gt_boxes[first[rows]]) > 0]
        gt, losses = first[rows], image.losses(rows, first[rows]).nan_to_num(nan=torch.inf)
        per_level = image.geometry.anchors_of_levels(len(anchors))
        levels = torch.arange(len(per_level), device=rows.device)
        levels = levels.repeat_interleave(on_device(per_level, rows.device), output_size=len(anchors))
        kept = first_of_groups(losses, gt * len(per_level) + levels[rows], self.number)
        rows, gt, losses = rows[kept], gt[kept], losses[kept]
        order, rank = ranks_in_groups(losses, gt)
        rows, gt, losses = rows[order], gt[order], losses[order]
        table = losses.new_full((len(gt_boxes), self.number * len(per_level)), torch.inf, dtype=torch.float64)
        table[gt, rank] = losses.double()
        counts = torch.zeros(len(gt_boxes), dtype=torch.int64, device=rows.device).index_add_(
            0, gt, torch.ones_like(gt)
        )
        numbers = separate_by_mixture(table, counts.clamp(min=1))  # of no candidates, none is selected below
        positive = rank < numbers[gt]
        matched = torch.full((len(anchors),), -1, device=anchors.device)
        matched[rows[positive]] = gt[positive]
        return matched
