"""The divisor of a detector's own classification loss."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class NativeDivisor:
    """The divisor of a detector's own classification loss, which ``NativeNormalizer`` reads.

    Args:
        count: Count of this process, such as its number of objects; it is summed over processes [].
        factors: Factor of the sum for each image [B].
        least: Smallest divisor: a smaller sum over processes is replaced by it.
    """

    count: Tensor
    factors: Tensor
    least: float = 1.0
