"""Normalized Gaussian Wasserstein distance, NWD (https://arxiv.org/abs/2110.13389), as a component of a criterion."""

from torch import Tensor

from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.nwd import nwd_loss
from .base import BoxLoss


class NWDLoss(BoxLoss):
    """NWD loss, ``1 - NWD`` (https://arxiv.org/abs/2110.13389), of decoded boxes: for very small objects.

    Disjoint boxes have a gradient, and an error of a pixel costs about the same for a box of any size. Stateless, no
    collectives. An image without objects contributes 0.

    Args:
        constant: Distance in pixels of the resized image at which the similarity is 1 / e, at least 1e-3. The authors
            take the mean of the square roots of the boxes' areas; 12.8 is that of AI-TOD.

    Raises:
        UsageError: If the constant is out of range.
    """

    space = "boxes"

    def __init__(self, constant: float = 12.8) -> None:
        super().__init__()
        self.constant = check_range("nwd", "constant", constant, 1e-3)

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """Compute the NWD loss of each positive [P]."""
        return nwd_loss(predicted, target, self.constant)
