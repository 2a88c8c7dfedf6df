"""Complete IoU loss, CIoU (https://arxiv.org/abs/1911.08287), as a component of a criterion."""

import torch
from torch import Tensor
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss

from ..core.samples import DenseSamples
from ..functional.iou import enlarged
from .base import BoxLoss

LEAST_SIDE = 1e-3
"""Side in pixels, after :func:`~lit_dense.functional.iou.enlarged`, below which aspect ratios are not compared."""


class CIoULoss(BoxLoss):
    """Complete IoU loss, ``1 - CIoU`` (https://arxiv.org/abs/1911.08287), of decoded boxes.

    Like torchvision, it compares aspect ratios at any IoU. mmdetection and the code of the second paper
    (https://arxiv.org/abs/2005.03572) do so only above IoU 0.5. Stateless, no collectives. An image without objects
    contributes 0.
    """

    space = "boxes"

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """Compute 1 - CIoU of each positive, or 1 - DIoU if a box has a side below a thousandth of a pixel [P]."""
        predicted, target = enlarged(predicted, target)
        # torchvision divides width by height: 0 / 0 is NaN, and so is the gradient of w / h at h = 0. Masking the
        # result does not remove NaN from the gradient, so flat boxes are replaced before the computation.
        flat = (_least_side(predicted) < LEAST_SIDE) | (_least_side(target) < LEAST_SIDE)
        unit = (torch.arange(4, device=predicted.device) > 1).to(predicted.dtype)  # the box 0 0 1 1
        not_flat = [torch.where(flat[:, None], unit, boxes) for boxes in (predicted, target)]
        return torch.where(
            flat,
            distance_box_iou_loss(predicted, target, reduction="none"),
            complete_box_iou_loss(*not_flat, reduction="none"),
        )


def _least_side(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).detach().amin(1)
