"""A squared hinge loss for lit_dense."""

from torch import Tensor

from lit_dense import DenseSamples, SigmoidLoss, SigmoidTerms


class HingeLoss(SigmoidLoss):
    """Squared hinge loss: the square of the distance by which a logit misses the margin.

    Args:
        margin: Distance from 0 from which on a logit has no loss, over 0.

    Raises:
        ValueError: If the margin is out of range.
    """

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        if not margin > 0:
            raise ValueError(f"hinge: margin must be over 0, not {margin}.")
        self.margin = margin

    def sigmoid_terms(self, samples: DenseSamples) -> SigmoidTerms:
        """Return the loss of a single logit with target 0 and with target 1, each as value and derivative."""

        def negative(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            lack = (self.margin + x).clamp(min=0)
            return lack.square(), 2 * lack

        def positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> tuple[Tensor, Tensor]:
            lack = (self.margin - x).clamp(min=0)
            return lack.square(), -2 * lack

        return SigmoidTerms(negative, positive)
