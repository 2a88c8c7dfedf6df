"""Distance IoU of boxes."""

import torch
from torch import Tensor
from torchvision.ops import distance_box_iou_loss

from ..core.samples import DenseSamples
from ..functional.iou import enlarged
from .base import BoxLoss


class DIoULoss(BoxLoss):
    """1 - distance IoU (https://arxiv.org/abs/1911.08287) of decoded boxes.

    No state and nothing summed over processes; an image without objects adds nothing.
    """

    space = "boxes"

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """1 - DIoU of each positive [P]."""
        return torch.as_tensor(distance_box_iou_loss(*enlarged(predicted, target), reduction="none"))
