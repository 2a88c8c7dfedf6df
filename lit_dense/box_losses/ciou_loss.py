"""Complete IoU loss, CIoU (https://arxiv.org/abs/1911.08287), as a component of a criterion."""

from torch import Tensor

from ..core.samples import DenseSamples
from ..functional.ciou import ciou_loss
from .iou_family import IoUFamilyLoss


class CIoULoss(IoUFamilyLoss):
    """Complete IoU loss, CIoU, ``1 - CIoU`` (https://arxiv.org/abs/1911.08287), of decoded boxes.

    Like torchvision, it compares aspect ratios at any IoU. mmdetection and the code of the second paper
    (https://arxiv.org/abs/2005.03572) do so only above IoU 0.5. Stateless, no collectives. An image without objects
    contributes 0.
    """

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """Compute the CIoU loss of each positive [P]."""
        return ciou_loss(predicted, target, variant=self.variant)
