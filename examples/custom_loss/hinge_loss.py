"""A squared hinge loss for lit_dense."""

from torch import Tensor

from lit_dense import DenseSamples, SigmoidLoss, SigmoidTerms


class HingeLoss(SigmoidLoss):
    """Squared hinge: an element costs the square of what its logit lacks to the margin.

    Args:
        margin: Distance from 0 at which a logit costs nothing any more, over 0.

    Raises:
        ValueError: If the margin is out of range.
    """

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        if not margin > 0:
            raise ValueError(f"hinge: margin must be over 0, not {margin}.")
        self.margin = margin

    def sigmoid_terms(self, samples: DenseSamples) -> SigmoidTerms:
        """A no and a yes of a single logit, each as value and derivative."""

        def negative(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            lack = (self.margin + x).clamp(min=0)
            return lack.square(), 2 * lack

        def positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> tuple[Tensor, Tensor]:
            lack = (self.margin - x).clamp(min=0)
            return lack.square(), -2 * lack

        return SigmoidTerms(negative, positive)
