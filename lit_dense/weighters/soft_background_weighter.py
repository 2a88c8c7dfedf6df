"""Soft sampling (https://arxiv.org/abs/1806.06986) as a weighter, for data with missing labels."""

from typing import Any

import torch
from torch import Tensor

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.matching import largest_ious
from ..functional.soft_background import soft_background_weights
from .base import LossValues, Weighter, Weights


class SoftBackgroundWeighter(Weighter):
    """Lowers the weight of background far from all boxes (soft sampling, https://arxiv.org/abs/1806.06986).

    Objects without a label lie mostly far from the labelled ones, and the loss would train them as background.
    Positives have weight 1. No state, no collectives. In an image without boxes, all anchors have weight ``floor``.

    Args:
        floor: Weight of background without overlap, in [0, 1].
        b: Position of the transition to 1, at least 0: the larger, the more overlap is needed.
        c: Steepness of the transition, at least 0.
        schedule: ``warmup_steps`` and ``fade_steps``, the arguments of every weighter.

    Raises:
        UsageError: If an argument is out of range.
    """

    reads_anchors = True

    def __init__(self, floor: float = 0.25, b: float = 50.0, c: float = 20.0, **schedule: Any) -> None:
        super().__init__(**schedule)
        self.floor = check_range("soft_background", "floor", floor, 0, 1)
        self.b = check_range("soft_background", "b", b, 0)
        self.c = check_range("soft_background", "c", c, 0)

    def forward(self, samples: DenseSamples, values: LossValues) -> Weights:
        """Compute the weights from the overlaps of anchors and boxes."""
        weights = soft_background_weights(largest_overlaps(samples), self.floor, self.b, self.c)
        weights = weights.to(values.classification.dtype)
        return Weights(classification=weights.index_fill(0, samples.positives, 1.0))


@torch.no_grad()
def largest_overlaps(samples: DenseSamples) -> Tensor:
    """Return the largest IoU of each anchor with a ground truth of its image; 0 in an image without any [A].

    Args:
        samples: The batch.
    """
    anchors = samples.anchors.float()
    overlaps = torch.zeros_like(anchors[:, 0])
    for image in range(samples.num_images):
        rows = samples.rows_of(image)
        overlaps[rows] = largest_ious(anchors[rows], samples.gt_boxes[samples.gt_image_idxs == image].float())
    return overlaps
