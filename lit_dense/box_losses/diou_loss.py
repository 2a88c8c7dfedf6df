"""Distance IoU loss, DIoU (https://arxiv.org/abs/1911.08287), as a component of a criterion."""

from torch import Tensor

from ..core.samples import DenseSamples
from ..functional.diou import diou_loss
from .iou_family import IoUFamilyLoss


class DIoULoss(IoUFamilyLoss):
    """Distance IoU loss, DIoU, ``1 - DIoU`` (https://arxiv.org/abs/1911.08287), of decoded boxes.

    With the argument ``shape`` it is Shape-IoU (https://arxiv.org/abs/2312.17663). Stateless, no collectives. An image
    without objects contributes 0.
    """

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """Compute the DIoU loss of each positive [P]."""
        return diou_loss(predicted, target, variant=self.variant)
