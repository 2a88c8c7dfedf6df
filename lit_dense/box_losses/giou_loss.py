"""Generalized IoU of boxes."""

import torch
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from ..core.samples import DenseSamples
from ..functional.iou import enlarged
from .base import BoxLoss


class GIoULoss(BoxLoss):
    """1 - generalized IoU (https://arxiv.org/abs/1902.09630) of decoded boxes.

    No state and nothing summed over processes; an image without objects adds nothing.
    """

    space = "boxes"

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """1 - GIoU of each positive [P]."""
        return torch.as_tensor(generalized_box_iou_loss(*enlarged(predicted, target), reduction="none"))
