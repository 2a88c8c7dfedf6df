"""The registry of classification losses; a separate module, because one loss can wrap another."""

from typing import TYPE_CHECKING, Any

from ..core.cli_types import cli_type
from ..core.registry import Registry
from .base import DenseLoss

LOSSES: Registry[DenseLoss] = Registry("lit_dense.losses", "loss", DenseLoss)

if TYPE_CHECKING:
    LossLike = DenseLoss | str | dict[str, Any]
else:
    LossLike = cli_type(LOSSES, "LossLike")
