"""Classification losses by name: each gives one value per anchor.

The names are entry points of the group ``lit_dense.losses``, and attributes of this module: ``lit_dense.losses.focal``
is the class behind the name ``focal``, so that a name is also an import path.
"""

from .asl_loss import AsymmetricLoss as AsymmetricLoss
from .base import DenseLoss as DenseLoss
from .base import SigmoidLoss as SigmoidLoss
from .bce_loss import BCELoss as BCELoss
from .efl_loss import EqualizedFocalLoss as EqualizedFocalLoss
from .eql_loss import EqualizationLoss as EqualizationLoss
from .eql_v2_loss import EqualizationLossV2 as EqualizationLossV2
from .federated_loss import FederatedLoss as FederatedLoss
from .focal_loss import FocalLoss as FocalLoss
from .focal_star_loss import FocalStarLoss as FocalStarLoss
from .ghm_loss import GHMLoss as GHMLoss
from .ia_bce_loss import IoUAwareBCELoss as IoUAwareBCELoss
from .names import LOSSES as LOSSES
from .names import LossLike as LossLike
from .poly_focal_loss import PolyFocalLoss as PolyFocalLoss
from .qfl_loss import QualityFocalLoss as QualityFocalLoss
from .seesaw_loss import SeesawLoss as SeesawLoss
from .softmax_loss import SoftmaxLoss as SoftmaxLoss
from .vfl_loss import VarifocalLoss as VarifocalLoss

__getattr__ = LOSSES.attribute
