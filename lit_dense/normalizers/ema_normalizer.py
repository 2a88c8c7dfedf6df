"""A moving average of the number of positives, as in detectron2's RetinaNet."""

import torch
from torch import Tensor

from ..core.errors import check_range
from ..core.samples import DenseSamples
from .base import Normalizer, positives_of_batch, same_for_all_images


class EMANormalizer(Normalizer):
    """The batch's sum per positive of a moving average over training steps.

    Steadier than ``batch`` where batches are small. Positives are counted over all processes, so all hold one average;
    a step without any counts as one. Evaluation divides by the average and leaves it as it is. detectron2, which it
    comes from, starts at 100 too, but each of its processes averages the positives of its own images.

    Args:
        momentum: Share of the past in the average, in [0, 1].
        initial: Positives of the whole batch to start from, at least 1.

    Raises:
        UsageError: If an argument is out of range.
    """

    positives: Tensor

    def __init__(self, momentum: float = 0.9, initial: float = 100.0) -> None:
        super().__init__()
        self.momentum = check_range("ema", "momentum", momentum, 0, 1)
        self.register_buffer("positives", torch.tensor(check_range("ema", "initial", initial, 1)))

    def forward(self, samples: DenseSamples) -> Tensor:
        """The divisor of each image [B]."""
        if not torch.is_grad_enabled():
            return same_for_all_images(self.positives, samples)
        positives = self.momentum * self.positives + (1 - self.momentum) * positives_of_batch(samples).clamp(min=1)
        self.stage(positives=positives)
        return same_for_all_images(positives, samples)
