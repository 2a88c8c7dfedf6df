"""Classification losses by name: each gives one value per anchor.

The names are entry points of the group ``lit_dense.losses``, and attributes of this module: ``lit_dense.losses.focal``
is the class behind the name ``focal``, so that a name is also an import path.
"""

from typing import TYPE_CHECKING, Any

from ..named_type import named_type
from ..registry import Registry
from .base import DenseLoss as DenseLoss
from .bce_loss import BCELoss as BCELoss
from .focal_loss import FocalLoss as FocalLoss

LOSSES: Registry[DenseLoss] = Registry("lit_dense.losses", "loss", DenseLoss)
__getattr__ = LOSSES.attribute

if TYPE_CHECKING:
    LossLike = DenseLoss | str | dict[str, Any]
else:
    LossLike = named_type(LOSSES, "LossLike")
