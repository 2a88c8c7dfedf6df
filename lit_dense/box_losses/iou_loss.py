"""IoU of boxes."""

from typing import get_args

from torch import Tensor

from ..core.errors import check_choice
from ..core.samples import DenseSamples
from ..functional.iou import IoUForm, iou_loss
from .base import BoxLoss


class IoULoss(BoxLoss):
    """IoU loss (https://arxiv.org/abs/1608.01471) of decoded boxes.

    Disjoint boxes have no gradient in any form: ``giou``, ``diou`` and their successors have one. No state and nothing
    summed over processes; an image without objects adds nothing.

    Args:
        form: ``linear`` for 1 - IoU, ``log`` for -log(IoU), ``square`` for 1 - IoU ** 2. The logarithm takes an IoU
            below 1e-6 as 1e-6, so that a pair of disjoint boxes costs 13.8 and not infinity.

    Raises:
        UsageError: If there is no such form.
    """

    space = "boxes"

    def __init__(self, form: IoUForm = "linear") -> None:
        super().__init__()
        self.form: IoUForm = check_choice("iou", "form", form, get_args(IoUForm))

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """IoU loss of each positive [P]."""
        return iou_loss(predicted, target, self.form)
