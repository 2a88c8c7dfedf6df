"""Base class of box losses: ``BoxLoss``."""

from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from ..core.component import Component
from ..core.distributed import Reduce
from ..core.errors import UsageError
from ..core.samples import BoxCoder, DenseSamples
from ..core.step_context import StepContext

_OWN_OUTPUTS = (
    " With {0}, give DenseSamples.of deltas=[A, {1}], box_coder=box_loss.box_coder and, as anchors, squares around the "
    "centres of the anchors with the side of the stride."
)


class OutputCoder(BoxCoder, Protocol):
    """Interface of the box coder of a loss with outputs of its own."""

    def outputs_of(self, deltas: Tensor) -> Tensor:
        """Return outputs that decode to the boxes of these deltas [N, box_outputs]."""


class BoxLoss(Component):
    """Base class of box losses: maps predictions and targets of the positives to one value per positive.

    Attributes:
        space: Quantity that the loss compares: ``deltas`` of the anchors, or decoded ``boxes`` in pixels, x1 y1 x2 y2.
        reads_image_sizes: Whether the loss reads the sizes of the images.
        box_outputs: Number of outputs of the head for the box of an anchor. Only some detectors can give another number
            than 4.
        box_coder: Converts boxes into deltas and these outputs into boxes, for a loss with outputs of its own; None for
            the coder of the detector. In place of anchors it gets cells: squares around the centres of the anchors
            whose side is the stride of the level. ``encode_single`` gives target deltas [N, 4], and ``outputs_of``
            converts these into outputs that decode to them.
    """

    space: ClassVar[Literal["deltas", "boxes"]] = "deltas"
    reads_image_sizes: ClassVar[bool] = False
    box_outputs: int = 4
    box_coder: OutputCoder | None = None

    def __call__(self, predicted: Tensor, target: Tensor, samples: DenseSamples | None = None) -> Tensor:
        """Compute the loss of each positive.

        Args:
            predicted: Predicted deltas or boxes [P, 4]; for a loss with outputs of its own [P, box_outputs].
            target: Target deltas or boxes [P, 4].
            samples: The batch with everything else the loss may use. By default the loss is computed from predictions
                and targets only.

        Raises:
            UsageError: If the predictions have another number of columns than the loss reads.

        Example:
            >>> from lit_dense.box_losses import L1Loss
            >>> L1Loss()(torch.ones(1, 4), torch.zeros(1, 4)).sum()
            tensor(4.)
        """
        if samples is None:  # make samples in which each row is a positive of a single class
            labels = torch.zeros(len(predicted), dtype=torch.int64, device=predicted.device)
            context = StepContext(Reduce(enabled=torch.is_grad_enabled()))
            samples = DenseSamples.of(-predicted.new_ones(len(predicted), 1), labels, context=context)
        if predicted.shape[1] != (expected := self.box_outputs if self.space == "deltas" else 4):
            raise UsageError(
                f"{type(self).__name__} reads {expected} outputs for the box of an anchor, not {predicted.shape[1]}."
                f"{'' if self.box_coder is None else _OWN_OUTPUTS.format(type(self).__name__, expected)}"
            )
        values: Tensor = super().__call__(predicted, target, samples)
        return values

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """Compute one value per positive [P], or one per coordinate [P, 4], which the criterion sums.

        Args:
            predicted: Predicted deltas or boxes of the positives, float32 [P, 4]. In the space ``deltas``, a loss with
                outputs of its own gets these [P, box_outputs].
            target: Target deltas or boxes [P, 4].
            samples: The batch with everything else the loss may use.
        """
        raise NotImplementedError
