"""Generalized IoU loss, GIoU (https://arxiv.org/abs/1902.09630), as a component of a criterion."""

import torch
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from ..core.samples import DenseSamples
from ..functional.iou import enlarged
from .base import BoxLoss


class GIoULoss(BoxLoss):
    """Generalized IoU loss, ``1 - GIoU`` (https://arxiv.org/abs/1902.09630), of decoded boxes.

    Stateless, no collectives. An image without objects contributes 0.
    """

    space = "boxes"

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """Compute 1 - GIoU of each positive [P]."""
        return torch.as_tensor(generalized_box_iou_loss(*enlarged(predicted, target), reduction="none"))
