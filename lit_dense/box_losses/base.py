"""The base of box losses."""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..core.component import Component
from ..core.distributed import Reduce
from ..core.samples import DenseSamples
from ..core.step_context import StepContext


class BoxLoss(Component):
    """A box loss: what the positives predict and should predict in, one value per positive out.

    Attributes:
        space: What it compares: ``deltas`` of the anchors, or decoded ``boxes`` in pixels, x1 y1 x2 y2.
    """

    space: ClassVar[Literal["deltas", "boxes"]] = "deltas"

    def __call__(self, predicted: Tensor, target: Tensor, samples: DenseSamples | None = None) -> Tensor:
        """The loss of each positive, of predictions and targets alone where no samples are given.

        Args:
            predicted: Predicted deltas or boxes [P, 4].
            target: What they should be [P, 4].
            samples: Everything else that is known of the batch.

        Example:
            >>> from lit_dense.box_losses import L1Loss
            >>> L1Loss()(torch.ones(1, 4), torch.zeros(1, 4)).sum()
            tensor(4.)
        """
        if samples is None:  # each row stands for a positive of one class
            labels = torch.zeros(len(predicted), dtype=torch.int64, device=predicted.device)
            context = StepContext(Reduce(enabled=torch.is_grad_enabled()))
            samples = DenseSamples.of(-predicted.new_ones(len(predicted), 1), labels, context=context)
        values: Tensor = super().__call__(predicted, target, samples)
        return values

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """One value per positive [P], or one per coordinate before their sum [P, 4].

        Args:
            predicted: Predicted deltas or boxes of the positives, float32 [P, 4].
            target: What they should be [P, 4].
            samples: Everything else that is known of the batch.
        """
        raise NotImplementedError
