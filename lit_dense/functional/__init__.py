"""The mathematics: tensors in, tensors out, one method a file."""

from .asymmetric import asymmetric_loss as asymmetric_loss
from .balanced_l1 import balanced_l1_loss as balanced_l1_loss
from .bce import bce_loss as bce_loss
from .elements import Elements as Elements
from .elements import sum_over_classes as sum_over_classes
from .equalization import equalization_loss as equalization_loss
from .equalization_v2 import equalization_v2_loss as equalization_v2_loss
from .equalized_focal import equalized_focal_loss as equalized_focal_loss
from .focal import focal_loss as focal_loss
from .focal_star import focal_star_loss as focal_star_loss
from .ia_bce import ia_bce_loss as ia_bce_loss
from .one_pass import per_anchor as per_anchor
from .one_pass import plain_path as plain_path
from .poly_focal import poly_focal_loss as poly_focal_loss
from .quality_focal import quality_focal_loss as quality_focal_loss
from .seesaw import seesaw_loss as seesaw_loss
from .softmax import softmax_loss as softmax_loss
from .varifocal import varifocal_loss as varifocal_loss
