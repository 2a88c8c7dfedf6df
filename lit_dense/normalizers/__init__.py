"""Normalizers by name; each computes the divisors of the loss sums of a batch.

The names are the entry points of the group ``lit_dense.normalizers``. Each name is also an attribute of this module. A
normalizer returns one divisor per image. Data-parallel training averages the losses of the processes. With these
divisors the average equals the loss of a single process with the whole batch.
"""

from typing import TYPE_CHECKING, Any

from ..core.cli_types import cli_type
from ..core.registry import Registry
from .base import Normalizer as Normalizer

NORMALIZERS: Registry[Normalizer] = Registry("lit_dense.normalizers", "normalizer", Normalizer)


def __getattr__(name: str) -> Any:
    return NORMALIZERS.attribute(name)


if TYPE_CHECKING:
    NormalizerLike = Normalizer | str | dict[str, Any]
else:
    NormalizerLike = cli_type(NORMALIZERS, "NormalizerLike")
