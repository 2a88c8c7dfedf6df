"""Assigners by name: each decides which ground truth an anchor stands for.

The names are entry points of the group ``lit_dense.assigners``, and attributes of this module.
"""

from typing import TYPE_CHECKING, Any

from ..named_type import named_type
from ..registry import Registry
from .atss_assigner import ATSSAssigner as ATSSAssigner
from .base import Assigner as Assigner
from .base import AssignInput as AssignInput
from .max_iou_assigner import MaxIoUAssigner as MaxIoUAssigner
from .top_n_assigner import TopNAssigner as TopNAssigner

ASSIGNERS: Registry[Assigner] = Registry("lit_dense.assigners", "assigner", Assigner)
__getattr__ = ASSIGNERS.attribute

if TYPE_CHECKING:
    AssignerLike = Assigner | str | dict[str, Any]
else:
    AssignerLike = named_type(ASSIGNERS, "AssignerLike")
