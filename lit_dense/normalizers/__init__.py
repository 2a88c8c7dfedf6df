"""Normalizers by name: what the sums over a batch are divided by.

The names are entry points of the group ``lit_dense.normalizers``, and attributes of this module. Each gives one
divisor per image, such that the mean of the processes' losses, which is what data-parallel training follows, is the
loss of one process that holds the whole batch.
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
