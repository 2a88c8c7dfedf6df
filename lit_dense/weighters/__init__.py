"""Weighters by name: each decides how much every anchor counts.

The names are entry points of the group ``lit_dense.weighters``, and attributes of this module.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..named_type import named_type
from ..registry import Registry
from .base import LossValues as LossValues
from .base import Weighter as Weighter
from .base import Weights as Weights
from .class_balanced_weighter import ClassBalancedWeighter as ClassBalancedWeighter
from .cleanliness_weighter import CleanlinessWeighter as CleanlinessWeighter
from .ohem_weighter import OHEMWeighter as OHEMWeighter
from .pisa_weighter import PISAWeighter as PISAWeighter
from .swn_weighter import SWNWeighter as SWNWeighter
from .target_weighter import TargetWeighter as TargetWeighter

WEIGHTERS: Registry[Weighter] = Registry("lit_dense.weighters", "weighter", Weighter)
__getattr__ = WEIGHTERS.attribute

if TYPE_CHECKING:
    WeighterLike = Weighter | str | dict[str, Any]
else:
    WeighterLike = named_type(WEIGHTERS, "WeighterLike")
WeightersLike = Sequence[WeighterLike] | WeighterLike
