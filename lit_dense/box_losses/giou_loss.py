"""Generalized IoU loss, GIoU (https://arxiv.org/abs/1902.09630), as a component of a criterion."""

from torch import Tensor

from ..core.samples import DenseSamples
from ..functional.giou import giou_loss
from .iou_family import IoUFamilyLoss


class GIoULoss(IoUFamilyLoss):
    """Generalized IoU loss, GIoU, ``1 - GIoU`` (https://arxiv.org/abs/1902.09630), of decoded boxes.

    Stateless, no collectives. An image without objects contributes 0.
    """

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """Compute the GIoU loss of each positive [P]."""
        return giou_loss(predicted, target, variant=self.variant)
