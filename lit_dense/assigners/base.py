"""The base of assigners."""

from torch import Tensor

from ..part import Part
from ..samples import Geometry


class Assigner(Part):
    """Matches the anchors of an image with its ground truths."""

    owns = frozenset({"assignment"})

    def forward(self, anchors: Tensor, gt_boxes: Tensor, geometry: Geometry | None) -> Tensor:
        """Index of the matched ground truth of each anchor; -1 background, -2 ignored [K].

        Args:
            anchors: Anchors of the image [K, 4].
            gt_boxes: Ground-truth boxes of the image, at least one [G, 4].
            geometry: Sizes of levels and images, None where the detector does not tell them.
        """
        raise NotImplementedError
