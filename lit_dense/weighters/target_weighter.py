"""A weighter with a weight for each ground-truth box, read from the annotations."""

from typing import Any

import torch

from ..core.errors import UsageError
from ..core.samples import DenseSamples
from .base import LossValues, Weighter, Weights


class TargetWeighter(Weighter):
    """Weights positives by a number given for each ground-truth box, such as its difficulty.

    The numbers are a field of the targets with one value per box. ``CocoDataModule`` reads it from the annotation key
    ``weight_key``. No collectives. Background anchors, including those of images without objects, have weight 1. A
    number that is negative or not finite is an error on a CPU, and makes the loss NaN, which is an error, on a GPU.

    Args:
        field: Name of the field in the targets.
        classification: Whether to weight the classification loss.
        box: Whether to weight the box loss.
        schedule: ``warmup_steps`` and ``fade_steps``, the arguments of every weighter.

    Raises:
        UsageError: In training, if the targets do not have the field, or one of its numbers is negative or not finite.
    """

    def __init__(self, field: str = "weight", classification: bool = True, box: bool = True, **schedule: Any) -> None:
        super().__init__(**schedule)
        self.field, self.classification, self.box = field, classification, box

    def forward(self, samples: DenseSamples, values: LossValues) -> Weights:
        """Look up the weight of each positive's ground-truth box."""
        if self.field not in samples.target_fields:
            known = ", ".join(samples.target_fields) or "none"
            raise UsageError(
                f"target_weights: the targets have no field {self.field!r} with one number for each box in every image "
                f"(fields: {known}). Set data.weight_key to the annotation's key, or add the field to the targets."
            )
        given = samples.target_fields[self.field]
        if given.dim() != 1:
            raise UsageError(
                f"target_weights: {self.field!r} must have one number for each box [G], not {list(given.shape[1:])}."
            )
        is_valid = (given >= 0) & given.isfinite()
        if given.device.type == "cpu" and not bool(is_valid.all()):
            wrong = given[~is_valid][0].item()
            raise UsageError(f"target_weights: {self.field!r} must be finite numbers of at least 0, not {wrong:g}.")
        given = given.to(values.box).masked_fill(~is_valid, float("nan"))  # on a GPU the loss is NaN: an error, no wait
        pos_weights = given[samples.pos_matched_idxs]
        weights = torch.ones_like(values.classification).index_put((samples.positives,), pos_weights)
        return Weights(weights if self.classification else None, pos_weights if self.box else None)
