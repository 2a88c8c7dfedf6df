"""Complete IoU of boxes."""

import torch
from torch import Tensor
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss

from ..core.samples import DenseSamples
from ..functional.iou import enlarged
from .base import BoxLoss

LEAST_SIDE = 1e-3
"""In pixels, after :func:`~lit_dense.functional.iou.enlarged`: a thinner box has no aspect ratio to speak of."""


class CIoULoss(BoxLoss):
    """1 - complete IoU (https://arxiv.org/abs/1911.08287) of decoded boxes.

    As torchvision's, it compares aspect ratios at any IoU; the code of the second paper's authors
    (https://arxiv.org/abs/2005.03572) and mmdetection's do so above 0.5 only. No state and nothing summed over
    processes; an image without objects adds nothing.
    """

    space = "boxes"

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """1 - CIoU of each positive [P]; 1 - DIoU where a box has a side below a thousandth of a pixel."""
        predicted, target = enlarged(predicted, target)
        # torchvision divides width by height: 0 / 0 is NaN, and the gradient of w / h at h = 0 is NaN too. A NaN
        # gradient comes through a mask put on the result, so flat boxes must not get there at all.
        flat = (_least_side(predicted) < LEAST_SIDE) | (_least_side(target) < LEAST_SIDE)
        unit = (torch.arange(4, device=predicted.device) > 1).to(predicted.dtype)  # the box 0 0 1 1
        solid = [torch.where(flat[:, None], unit, boxes) for boxes in (predicted, target)]
        return torch.where(
            flat,
            distance_box_iou_loss(predicted, target, reduction="none"),
            complete_box_iou_loss(*solid, reduction="none"),
        )


def _least_side(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).detach().amin(1)
