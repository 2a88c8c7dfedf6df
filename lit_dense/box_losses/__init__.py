"""Box losses by name: each gives one value per positive anchor, or one per coordinate.

The names are entry points of the group ``lit_dense.box_losses``, and attributes of this module.
"""

from typing import TYPE_CHECKING, Any

from ..named_type import named_type
from ..registry import Registry
from .balanced_l1_loss import BalancedL1Loss as BalancedL1Loss
from .base import BoxLoss as BoxLoss
from .ciou_loss import CIoULoss as CIoULoss
from .diou_loss import DIoULoss as DIoULoss
from .eiou_loss import EIoULoss as EIoULoss
from .ghm_r_loss import GHMRLoss as GHMRLoss
from .giou_loss import GIoULoss as GIoULoss
from .iou_loss import IoULoss as IoULoss
from .l1_loss import L1Loss as L1Loss
from .mse_loss import MSELoss as MSELoss
from .smooth_l1_loss import SmoothL1Loss as SmoothL1Loss

BOX_LOSSES: Registry[BoxLoss] = Registry("lit_dense.box_losses", "box loss", BoxLoss)
__getattr__ = BOX_LOSSES.attribute

if TYPE_CHECKING:
    BoxLossLike = BoxLoss | str | dict[str, Any]
else:
    BoxLossLike = named_type(BOX_LOSSES, "BoxLossLike")
