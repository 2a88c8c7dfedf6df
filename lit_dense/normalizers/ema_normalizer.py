"""Normalisation by a moving average of the number of positives, as in detectron2's RetinaNet."""

import torch
from torch import Tensor

from ..core.errors import check_range
from ..core.samples import DenseSamples
from .base import Normalizer, positives_of_batch, same_for_all_images


class EMANormalizer(Normalizer):
    """Divides the loss sum of the batch by a moving average of its number of positives over training steps.

    The divisor varies less than that of ``batch`` if batches are small. Positives are counted over all processes, so
    that all have the same average. Steps without positives count as one positive. Evaluation uses the average and does
    not change it. detectron2's version also starts at 100, but each of its processes averages only its own positives.

    Args:
        momentum: Weight of the past in the average, in [0, 1].
        initial: Initial average number of positives of the whole batch, at least 1.

    Raises:
        UsageError: If an argument is out of range.
    """

    positives: Tensor

    def __init__(self, momentum: float = 0.9, initial: float = 100.0) -> None:
        super().__init__()
        self.momentum = check_range("ema", "momentum", momentum, 0, 1)
        self.register_buffer("positives", torch.tensor(check_range("ema", "initial", initial, 1)))

    def forward(self, samples: DenseSamples) -> Tensor:
        """Compute the divisor of each image [B]."""
        if not torch.is_grad_enabled():
            return same_for_all_images(self.positives, samples)
        positives = self.momentum * self.positives + (1 - self.momentum) * positives_of_batch(samples).clamp(min=1)
        self.stage(positives=positives)
        return same_for_all_images(positives, samples)
