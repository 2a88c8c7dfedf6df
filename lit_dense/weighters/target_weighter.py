"""Weights that come with the data as a part of a criterion."""

from typing import Any

import torch

from ..core.errors import UsageError
from ..core.samples import DenseSamples
from .base import LossValues, Weighter, Weights


class TargetWeighter(Weighter):
    """Weighs positives by a number that each ground-truth box brings along, such as a score of how hard it is.

    The numbers are a field of the targets with one value for each box. ``CocoDataModule`` reads one from the annotation
    key ``weight_key``. Nothing is summed over processes; background and an image without objects keep their weight.

    Args:
        field: Name of the field in the targets.
        classification: Whether the classification loss is weighed.
        box: Whether the box loss is weighed.
        schedule: ``warmup_steps`` and ``fade_steps``, as every weighter has.

    Raises:
        UsageError: In training, if the targets have no such field.
    """

    def __init__(self, field: str = "weight", classification: bool = True, box: bool = True, **schedule: Any) -> None:
        super().__init__(**schedule)
        self.field, self.classification, self.box = field, classification, box

    def forward(self, samples: DenseSamples, values: LossValues) -> Weights:
        """The weight of each positive's ground truth."""
        if self.field not in samples.target_fields:
            known = ", ".join(samples.target_fields) or "none"
            raise UsageError(
                f"target_weights: the targets have no field {self.field!r} with one number for each box (fields: "
                f"{known}). Set data.weight_key to the annotation's key, or put the field into the targets."
            )
        own = samples.target_fields[self.field].to(values.box)[samples.pos_matched_idxs]
        anchors = torch.ones_like(values.classification).index_put((samples.positives,), own)
        return Weights(anchors if self.classification else None, own if self.box else None)
