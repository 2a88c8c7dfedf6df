"""Weights by a power of the IoU, IoU-balanced losses (https://arxiv.org/abs/1908.05641), as a weighter."""

from typing import Any

import torch

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.iou_balanced import iou_balanced_weights, weighted_sums
from .base import LossValues, Weighter, Weights


class IoUBalancedWeighter(Weighter):
    """IoU-balanced losses (https://arxiv.org/abs/1908.05641): positives with accurate boxes weigh more.

    The weight of a positive is a power of the IoU of its predicted box, scaled so that the sum of the losses of the
    positives of all processes stays the same. It multiplies all logits of the positive. Background anchors, including
    those of images without objects, have weight 1.

    Args:
        eta: Exponent of the IoU in the weights of the classification loss, at least 0.
        box_eta: Exponent of the IoU in the weights of the box loss, at least 0.
        schedule: ``warmup_steps`` and ``fade_steps``, the arguments of every weighter.

    Raises:
        UsageError: If an exponent is negative.
    """

    def __init__(self, eta: float = 1.5, box_eta: float = 1.5, **schedule: Any) -> None:
        super().__init__(**schedule)
        self.eta = check_range("iou_balanced", "eta", eta, 0)
        self.box_eta = check_range("iou_balanced", "box_eta", box_eta, 0)

    def forward(self, samples: DenseSamples, values: LossValues) -> Weights:
        """Compute the weights of the positives for both losses."""
        images = samples.pos_image_idxs
        powers, box_powers = samples.pos_ious**self.eta, samples.pos_ious**self.box_eta
        costs = values.classification[samples.positives] * values.image_scales[images]
        own = weighted_sums(powers, costs), weighted_sums(box_powers, values.box * values.box_scales[images])
        sums, box_sums = samples.reduce.sum(torch.stack(own)).unbind()
        pos_weights = iou_balanced_weights(powers, sums).to(values.classification.dtype)
        weights = torch.ones_like(values.classification).index_put((samples.positives,), pos_weights)
        return Weights(weights, iou_balanced_weights(box_powers, box_sums).to(values.box.dtype))
