"""Assignment by IoU thresholds."""

from torch import Tensor

from ..core.errors import check_range
from ..functional.matching import match_by_iou
from .base import Assigner, AssignInput


class MaxIoUAssigner(Assigner):
    """torchvision's assignment: each anchor takes the ground truth of largest IoU, if that is large enough.

    Args:
        positive: IoU from which an anchor is positive, in [0, 1].
        negative: IoU below which it is background, at most ``positive``; in between it is ignored.
        allow_low_quality: Whether the best anchors of a ground truth are positive even below the threshold.

    Raises:
        UsageError: If the thresholds are out of order or range.
    """

    def __init__(self, positive: float = 0.5, negative: float = 0.4, allow_low_quality: bool = True) -> None:
        super().__init__()
        check_range("max_iou", "positive", positive, 0, 1)
        check_range("max_iou", "negative", negative, 0, positive)
        self.positive, self.negative, self.allow_low_quality = positive, negative, allow_low_quality

    def forward(self, image: AssignInput) -> Tensor:
        """Index of the matched ground truth of each anchor; -1 background, -2 ignored [K]."""
        return match_by_iou(image.anchors, image.gt_boxes, self.positive, self.negative, self.allow_low_quality)
