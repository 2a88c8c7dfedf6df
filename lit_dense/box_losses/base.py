"""Base class of box losses: ``BoxLoss``."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..core.component import Component
from ..core.distributed import Reduce
from ..core.samples import DenseSamples
from ..core.step_context import StepContext


class BoxLoss(Component):
    """Base class of box losses: maps predictions and targets of the positives to one value per positive.

    Attributes:
        space: Quantity that the loss compares: ``deltas`` of the anchors, or decoded ``boxes`` in pixels, x1 y1 x2 y2.
        reads_image_sizes: Whether the loss reads the sizes of the images.
    """

    space: ClassVar[Literal["deltas", "boxes"]] = "deltas"
    reads_image_sizes: ClassVar[bool] = False

    def __call__(self, predicted: Tensor, target: Tensor, samples: DenseSamples | None = None) -> Tensor:
        """Compute the loss of each positive.

        Args:
            predicted: Predicted deltas or boxes [P, 4].
            target: Target deltas or boxes [P, 4].
            samples: The batch with everything else the loss may use. By default the loss is computed from predictions
                and targets only.

        Example:
            >>> from lit_dense.box_losses import L1Loss
            >>> L1Loss()(torch.ones(1, 4), torch.zeros(1, 4)).sum()
            tensor(4.)
        """
        if samples is None:  # make samples in which each row is a positive of a single class
            labels = torch.zeros(len(predicted), dtype=torch.int64, device=predicted.device)
            context = StepContext(Reduce(enabled=torch.is_grad_enabled()))
            samples = DenseSamples.of(-predicted.new_ones(len(predicted), 1), labels, context=context)
        values: Tensor = super().__call__(predicted, target, samples)
        return values

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """Compute one value per positive [P], or one per coordinate [P, 4], which the criterion sums.

        Args:
            predicted: Predicted deltas or boxes of the positives, float32 [P, 4].
            target: Target deltas or boxes [P, 4].
            samples: The batch with everything else the loss may use.
        """
        raise NotImplementedError
