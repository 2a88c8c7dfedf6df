"""Assignment by normalised Wasserstein distance, NWD (https://arxiv.org/abs/2110.13389), as an assigner."""

from torch import Tensor

from ..core.errors import check_range
from ..functional.wasserstein import nearest_match
from .base import Assigner, AssignInput


class NWDAssigner(Assigner):
    """Assigns to each object its N anchors that are nearest by normalised Wasserstein distance, for small objects.

    The distance compares boxes as Gaussians (https://arxiv.org/abs/2110.13389), so that an anchor that does not overlap
    an object can be near it. Each object gets positives. An anchor that several objects select belongs to the nearest.
    All others are background; no anchor is ignored.

    Args:
        number: Number of anchors of each object, at least 1.

    Raises:
        UsageError: If the number is below 1.
    """

    def __init__(self, number: int = 3) -> None:
        super().__init__()
        self.number = int(check_range("nwd", "number", number, 1))

    def forward(self, image: AssignInput) -> Tensor:
        """Match anchors: the index of each anchor's ground truth, -1 background [K]."""
        return nearest_match(image.anchors.float(), image.gt_boxes.float(), self.number)
