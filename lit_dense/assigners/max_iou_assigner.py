"""Assignment by IoU thresholds (https://arxiv.org/abs/1506.01497), as an assigner."""

from torch import Tensor

from ..core.errors import check_range
from ..functional.matching import match_by_iou
from .base import Assigner, AssignInput


class MaxIoUAssigner(Assigner):
    """torchvision's assignment: matches each anchor with the ground truth of largest IoU, by IoU thresholds.

    Args:
        positive: Anchors with at least this IoU are positive, in [0, 1].
        negative: Anchors with a smaller IoU are background, at most ``positive``; those in between are ignored.
        allow_low_quality: Whether the best anchors of a ground truth are positive even below the threshold.

    Raises:
        UsageError: If a threshold is out of range, or ``negative`` is larger than ``positive``.
    """

    def __init__(self, positive: float = 0.5, negative: float = 0.4, allow_low_quality: bool = True) -> None:
        super().__init__()
        check_range("max_iou", "positive", positive, 0, 1)
        check_range("max_iou", "negative", negative, 0, positive)
        self.positive, self.negative, self.allow_low_quality = positive, negative, allow_low_quality

    def forward(self, image: AssignInput) -> Tensor:
        """Match anchors: the index of each anchor's ground truth, -1 background, -2 ignored [K]."""
        return match_by_iou(image.anchors, image.gt_boxes, self.positive, self.negative, self.allow_low_quality)
