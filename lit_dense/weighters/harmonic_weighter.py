"""Mutual weights of both losses, Harmonic loss (https://arxiv.org/abs/2108.10809), as a weighter."""

import torch

from ..core.samples import DenseSamples
from ..functional.harmonic import harmonic_weights
from .base import LossValues, Weighter, Weights


class HarmonicWeighter(Weighter):
    """Harmonic loss (https://arxiv.org/abs/2108.10809): each loss of a positive weighs more if the other is small.

    The weight of a positive is ``1 + exp(-box loss)`` for its classification loss, and ``1 + exp(-classification
    loss)`` for its box loss. Both are from 1 to 2 and detached. No collectives. Background anchors, including those of
    images without objects, have weight 1. Without a box loss nothing is weighted.

    Args:
        warmup_steps: Number of training steps before the weighter has any effect, at least 0.
        fade_steps: Number of steps after the warm-up over which its effect grows linearly, at least 0.

    Raises:
        UsageError: If a number of steps is negative.
    """

    def forward(self, samples: DenseSamples, values: LossValues) -> Weights:
        """Compute the weights of the positives for both losses."""
        if not values.has_box:
            return Weights()
        pos_weights, box_weights = harmonic_weights(values.classification[samples.positives], values.box)
        pos_weights = pos_weights.to(values.classification.dtype)
        weights = torch.ones_like(values.classification).index_put((samples.positives,), pos_weights)
        return Weights(weights, box_weights.to(values.box.dtype))
