"""Minimum point distance IoU loss, MPDIoU (https://arxiv.org/abs/2307.07662), as a component of a criterion."""

from torch import Tensor

from ..core.samples import DenseSamples
from ..functional.mpdiou import mpdiou_loss
from .iou_family import IoUFamilyLoss


class MPDIoULoss(IoUFamilyLoss):
    """Minimum point distance IoU loss, ``1 - MPDIoU`` (https://arxiv.org/abs/2307.07662), of decoded boxes.

    The distances of the corners are relative to the diagonal of the resized image, without the padding of the batch.
    The arguments are those of every IoU loss. Stateless, no collectives. An image without objects contributes 0.

    Raises:
        UsageError: If an argument is out of range, or, when it is called, if the samples do not tell the sizes of the
            images.
    """

    reads_image_sizes = True

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """Compute the MPDIoU loss of each positive [P]."""
        return mpdiou_loss(predicted, target, samples.image_sizes[samples.pos_image_idxs], self.variant)
