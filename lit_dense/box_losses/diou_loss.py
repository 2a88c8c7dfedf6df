"""Distance IoU loss, DIoU (https://arxiv.org/abs/1911.08287), as a component of a criterion."""

import torch
from torch import Tensor
from torchvision.ops import distance_box_iou_loss

from ..core.samples import DenseSamples
from ..functional.iou import enlarged
from .base import BoxLoss


class DIoULoss(BoxLoss):
    """Distance IoU loss, ``1 - DIoU`` (https://arxiv.org/abs/1911.08287), of decoded boxes.

    Stateless, no collectives. An image without objects contributes 0.
    """

    space = "boxes"

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """Compute 1 - DIoU of each positive [P]."""
        return torch.as_tensor(distance_box_iou_loss(*enlarged(predicted, target), reduction="none"))
