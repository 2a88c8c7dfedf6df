"""Online hard example mining as a part of a criterion."""

from typing import Any

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.hard_negatives import hard_negatives
from .base import LossValues, Weighter, Weights


class OHEMWeighter(Weighter):
    """Keeps all positives and the hardest negatives of each image (https://arxiv.org/abs/1604.03540, as in SSD).

    Nothing is summed over processes, for images are apart. Of an image without objects as many negatives are kept as if
    it had ``k_min`` positives.

    Args:
        ratio: Negatives to keep for each positive of an image, at least 0; infinity keeps all.
        k_min: Positives that an image is taken to have at least; 0 leaves out images without objects.
        schedule: ``warmup_steps`` and ``fade_steps``, as every weighter has.

    Raises:
        UsageError: If an argument is out of range.
    """

    def __init__(self, ratio: float = 3.0, k_min: int = 1, **schedule: Any) -> None:
        super().__init__(**schedule)
        self.ratio = check_range("ohem", "ratio", ratio, 0)
        self.k_min = int(check_range("ohem", "k_min", k_min, 0))

    def forward(self, samples: DenseSamples, values: LossValues) -> Weights:
        """1 for anchors that are kept, 0 for others."""
        kept = hard_negatives(
            values.classification, samples.labels, samples.image_idxs, samples.num_images, self.ratio, self.k_min
        )
        return Weights(classification=kept)
