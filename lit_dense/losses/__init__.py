"""Classification losses by name; each returns one value per anchor.

The names are the entry points of the group ``lit_dense.losses``. Each name is also an attribute of this module:
``lit_dense.losses.focal`` is the class registered as ``focal``.
"""

from typing import Any

from .base import DenseLoss as DenseLoss
from .base import SigmoidLoss as SigmoidLoss
from .registry import LOSSES as LOSSES
from .registry import LossLike as LossLike


def __getattr__(name: str) -> Any:
    return LOSSES.attribute(name)
