"""Asymmetric loss as a part of a criterion."""

from ..core.errors import UsageError, check_range
from ..core.samples import DenseSamples
from ..functional.asymmetric import asymmetric_terms
from ..functional.fused.sigmoid_terms import SigmoidTerms
from .base import SigmoidLoss


class AsymmetricLoss(SigmoidLoss):
    """Asymmetric loss (https://arxiv.org/abs/2009.14119): easy negatives count little, very easy ones nothing.

    No state and nothing summed over processes; an image without objects counts as background.

    Args:
        gamma_pos: Focusing of positive elements, at least 0.
        gamma_neg: Focusing of negative elements, 0 or at least 1.
        margin: Probability below which a negative element costs nothing, in [0, 0.9].
        detach_weight: Whether no gradient flows through the focusing factors. The authors' code detaches them by
            default; the gradient analysed in the paper does not.

    Raises:
        UsageError: If an argument is out of range.
    """

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
        """Asymmetric loss of single logits."""
        return asymmetric_terms(self.gamma_pos, self.gamma_neg, self.margin, self.detach_weight)
