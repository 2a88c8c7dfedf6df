"""Classification losses by name: each gives one value per anchor.

The names are entry points of the group ``lit_dense.losses``, and attributes of this module: ``lit_dense.losses.focal``
is the class behind the name ``focal``, so that a name is also an import path.
"""

from typing import Any

from .base import DenseLoss as DenseLoss
from .base import SigmoidLoss as SigmoidLoss
from .registry import LOSSES as LOSSES
from .registry import LossLike as LossLike


def __getattr__(name: str) -> Any:
    return LOSSES.attribute(name)
