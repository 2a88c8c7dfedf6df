"""Conversion of half precision, in which sums and squares are rounded or overflow."""

from torch import Tensor


def float32_or_wider(values: Tensor) -> Tensor:
    """Convert half precision to float32; wider numbers are returned as they are."""
    return values.float() if values.dtype.itemsize < 4 else values
