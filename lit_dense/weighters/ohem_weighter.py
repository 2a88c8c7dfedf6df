"""Online hard example mining, OHEM (https://arxiv.org/abs/1604.03540), as a weighter."""

import math
from typing import Any

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.ohem import hard_negatives
from .base import LossValues, Weighter, Weights


class OHEMWeighter(Weighter):
    """Keeps all positives and the hardest negatives of each image (https://arxiv.org/abs/1604.03540, as in SSD).

    Images are independent, so there are no collectives. In an image without objects, as many negatives are kept as if
    it had ``k_min`` positives.

    Args:
        ratio: Number of negatives to keep for each positive of an image, at least 0; infinity keeps all.
        k_min: Lower bound of the number of positives of an image that ``ratio`` is applied to, at least 0. With 0 no
            negatives of images without objects are kept.
        schedule: ``warmup_steps`` and ``fade_steps``, the arguments of every weighter.

    Raises:
        UsageError: If an argument is out of range.
    """

    weighs_few = True

    def __init__(self, ratio: float = 3.0, k_min: int = 1, **schedule: Any) -> None:
        super().__init__(**schedule)
        self.ratio = check_range("ohem", "ratio", ratio, 0, math.inf)
        self.k_min = int(check_range("ohem", "k_min", k_min, 0))

    def forward(self, samples: DenseSamples, values: LossValues) -> Weights:
        """Compute the weights: 1 for anchors that are kept, 0 for others."""
        images, labels, counts = (samples.image_idxs, samples.num_images), samples.labels, samples.counts_of_images
        kept = hard_negatives(values.classification, labels, *images, self.ratio, self.k_min, counts)
        return Weights(classification=kept)
