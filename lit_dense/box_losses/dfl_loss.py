"""Distribution Focal Loss, DFL (https://arxiv.org/abs/2006.04388), as a component of a criterion."""

from typing import Any

import torch
from torch import Tensor

from ..core.distribution_coder import DistributionCoder
from ..core.errors import UsageError, check_range
from ..core.samples import DenseSamples
from ..functional.distribution_focal import distribution_focal_loss
from . import BOX_LOSSES, BoxLossLike
from .base import BoxLoss
from .iou_family import IoUFamilyLoss


class DFLLoss(BoxLoss):
    """Distribution Focal Loss, DFL (https://arxiv.org/abs/2006.04388), with an IoU loss of the expected box.

    The head predicts a distribution for each side of a box: ``reg_max + 1`` logits for the distances 0 to ``reg_max``
    from the centre of the anchor, in units of the stride of its level. The predicted box is that of the expected
    distances. So the head needs ``4 * (reg_max + 1)`` outputs for each anchor. Stateless, unless the IoU loss has
    state; no collectives of its own. An image without objects contributes 0.

    Args:
        iou_loss: The loss of the expected box, an IoU loss: a name, an object, or a dict with class_path and init_args.
        reg_max: Largest distance in strides, at least 1. A distribution has one bin more: 17 for 16, as in the authors'
            code. Ultralytics counts bins instead: its 16 is ``reg_max=15`` here.
        iou_weight: Factor of the IoU loss, at least 0.
        dfl_weight: Factor of DFL, the mean over the four sides, at least 0.

    Raises:
        UsageError: If an argument is out of range, or the loss of the expected box is not an IoU loss.
    """

    box_coder: DistributionCoder

    def __init__(
        self,
        iou_loss: BoxLossLike = "giou",
        reg_max: int = 16,
        iou_weight: float = 2.0,
        dfl_weight: float = 0.25,
    ) -> None:
        super().__init__()
        self.iou_loss = BOX_LOSSES.build(iou_loss)
        if not isinstance(self.iou_loss, IoUFamilyLoss) or self.iou_loss.reads_image_sizes:
            raise UsageError(
                "dfl: iou_loss must be an IoU loss that does not depend on the unit of boxes, such as giou, diou, "
                f"ciou, eiou, siou or wiou; {type(self.iou_loss).__name__} is none."
            )
        self.reg_max = int(check_range("dfl", "reg_max", reg_max, 1))
        self.iou_weight = check_range("dfl", "iou_weight", iou_weight, 0)
        self.dfl_weight = check_range("dfl", "dfl_weight", dfl_weight, 0)
        self.box_coder = DistributionCoder(self.reg_max + 1)
        self.box_outputs = 4 * self.box_coder.bins

    @property
    def spec(self) -> dict[str, Any]:
        """``class_path`` and ``init_args``, including those of the IoU loss."""
        spec = super().spec
        spec["init_args"]["iou_loss"] = self.iou_loss.spec
        return spec

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """Compute the weighted sum of the IoU loss and DFL of each positive [P].

        Args:
            predicted: Logits of the bins of the four sides [P, 4 (reg_max + 1)].
            target: Distances to the sides of the object in strides [P, 4].
            samples: The batch.
        """
        # an IoU does not depend on the unit: boxes around the centre of the anchor, in strides
        box, target_box = _around_origin(self.box_coder.distances(predicted)), _around_origin(target)
        values: Tensor = self.iou_loss(box, target_box, samples)
        of_sides = distribution_focal_loss(predicted.unflatten(1, (4, self.box_coder.bins)), target)
        return self.iou_weight * values + self.dfl_weight * of_sides.mean(1)


def _around_origin(distances: Tensor) -> Tensor:
    """Return the boxes with sides at these distances from the origin [P, 4]."""
    return torch.cat([-distances[:, :2], distances[:, 2:]], 1)
