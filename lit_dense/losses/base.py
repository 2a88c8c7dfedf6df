"""The base of classification losses."""

from typing import ClassVar

from torch import Tensor

from ..part import Part
from ..samples import DenseSamples


class DenseLoss(Part):
    """A classification loss: logits and labels in, one value per anchor out.

    Subclass it, give ``forward``, and register the class in the entry-point group ``lit_dense.losses``.

    Attributes:
        accepts_soft_targets: Whether ``samples.soft_targets`` are heeded.

    Example:
        >>> import torch
        >>> class Hinge(DenseLoss):
        ...     def forward(self, logits, labels, samples):
        ...         target = torch.nn.functional.one_hot(labels.clamp(min=-1) + 1, logits.shape[1] + 1)[:, 1:]
        ...         return (1 - logits * (2 * target - 1)).clamp(min=0).sum(1)
    """

    accepts_soft_targets: ClassVar[bool] = False

    def forward(self, logits: Tensor, labels: Tensor, samples: DenseSamples) -> Tensor:
        """One value per anchor: the sum over its classes [A].

        The criterion calls it outside autocast and drops the values of ignored anchors. With no positives or no
        anchors the result must still be finite and connected to the logits.

        Args:
            logits: Scores before the sigmoid [A, C].
            labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
            samples: Everything else that is known of the batch.
        """
        raise NotImplementedError
