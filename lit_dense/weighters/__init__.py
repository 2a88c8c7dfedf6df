"""Weighters by name; each computes a loss weight for every anchor.

The names are the entry points of the group ``lit_dense.weighters``. Each name is also an attribute of this module.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..core.cli_types import cli_type
from ..core.dual_weights import DualWeights as DualWeights
from ..core.registry import Registry
from .base import LossValues as LossValues
from .base import Weighter as Weighter
from .base import Weights as Weights

WEIGHTERS: Registry[Weighter] = Registry("lit_dense.weighters", "weighter", Weighter)


def __getattr__(name: str) -> Any:
    return WEIGHTERS.attribute(name)


if TYPE_CHECKING:
    WeighterLike = Weighter | str | dict[str, Any]
else:
    WeighterLike = cli_type(WEIGHTERS, "WeighterLike")
WeightersLike = Sequence[WeighterLike] | WeighterLike
