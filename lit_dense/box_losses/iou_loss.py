"""IoU loss (https://arxiv.org/abs/1608.01471), as a component of a criterion."""

from typing import get_args

from torch import Tensor

from ..core.errors import check_choice
from ..core.samples import DenseSamples
from ..functional.iou import IoUForm, iou_loss
from .base import BoxLoss


class IoULoss(BoxLoss):
    """IoU loss (https://arxiv.org/abs/1608.01471) of decoded boxes.

    Disjoint boxes have no gradient in any form; with ``giou``, ``diou`` and their successors they have one. Stateless,
    no collectives. An image without objects contributes 0.

    Args:
        form: ``linear`` for 1 - IoU, ``log`` for -log(max(IoU, 1e-6)), ``square`` for 1 - IoU ** 2. In the form ``log``
            the loss of disjoint boxes is 13.8.

    Raises:
        UsageError: If the form is unknown.
    """

    space = "boxes"

    def __init__(self, form: IoUForm = "linear") -> None:
        super().__init__()
        self.form: IoUForm = check_choice("iou", "form", form, get_args(IoUForm))

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """Compute the IoU loss of each positive [P]."""
        return iou_loss(predicted, target, self.form)
