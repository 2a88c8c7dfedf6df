"""Asymmetric loss, ASL (https://arxiv.org/abs/2009.14119), as a component of a criterion."""

from ..core.errors import UsageError, check_range
from ..core.samples import DenseSamples
from ..functional.asymmetric import asymmetric_terms
from ..functional.fused.sigmoid_terms import SigmoidTerms
from .base import SigmoidLoss


class AsymmetricLoss(SigmoidLoss):
    """Asymmetric loss, ASL (https://arxiv.org/abs/2009.14119): down-weights easy negatives, drops very easy ones.

    Stateless, no collectives. An image without objects counts as background.

    Args:
        gamma_pos: Focusing exponent of positive terms, at least 0.
        gamma_neg: Focusing exponent of negative terms, 0 or at least 1.
        margin: Probability below which the loss of a negative term is 0, in [0, 0.9].
        detach_weight: Whether to detach the focusing factors, so that no gradient flows through them. The authors' code
            detaches them by default; the gradient analysed in the paper includes them.

    Raises:
        UsageError: If an argument is out of range.
    """

    accepts_dual_weights = True

    def __init__(
        self, gamma_pos: float = 1.0, gamma_neg: float = 4.0, margin: float = 0.05, detach_weight: bool = False
    ) -> None:
        super().__init__()
        self.gamma_pos = check_range("asl", "gamma_pos", gamma_pos, 0)
        self.gamma_neg = check_range("asl", "gamma_neg", gamma_neg, 0)
        if 0 < gamma_neg < 1:
            raise UsageError(f"asl: gamma_neg must be 0 or at least 1, not {gamma_neg}: its slope would be infinite.")
        self.margin = check_range("asl", "margin", margin, 0, 0.9)
        self.detach_weight = detach_weight

    def sigmoid_terms(self, samples: DenseSamples) -> SigmoidTerms:
        """Return the terms of asymmetric loss."""
        return asymmetric_terms(self.gamma_pos, self.gamma_neg, self.margin, self.detach_weight)
