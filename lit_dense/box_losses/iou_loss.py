"""IoU loss (https://arxiv.org/abs/1608.01471), as a component of a criterion."""

from typing import Any, get_args

from torch import Tensor

from ..core.errors import UsageError, check_choice
from ..core.samples import DenseSamples
from ..functional.iou import IoUForm, iou_loss
from .iou_family import IoUFamilyLoss


class IoULoss(IoUFamilyLoss):
    """IoU loss (https://arxiv.org/abs/1608.01471) of decoded boxes.

    Disjoint boxes have no gradient in any form; with ``giou``, ``diou`` and their successors they have one. Stateless,
    no collectives. An image without objects contributes 0.

    Args:
        form: ``linear`` for 1 - IoU, ``log`` for -log(max(IoU, 1e-6)), ``square`` for 1 - IoU ** 2. In the form ``log``
            the loss of disjoint boxes is 13.8.
        variant: ``inner``, ``focaler``, ``alpha`` and ``shape``, the arguments of every IoU loss.

    Raises:
        UsageError: If an argument is out of range or unknown, or if a power is given twice.
    """

    def __init__(self, form: IoUForm = "linear", **variant: Any) -> None:
        super().__init__(**variant)
        self.form: IoUForm = check_choice("iou", "form", form, get_args(IoUForm))
        if form != "linear" and self.variant.alpha != 1:
            raise UsageError(
                f"iou: alpha={self.variant.alpha} needs form='linear', not form={form!r}: leave one of them out. "
                "form='square' is alpha=2."
            )

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """Compute the IoU loss of each positive [P]."""
        return iou_loss(predicted, target, self.form, self.variant)
