"""Adapters by name: each connects the criterion to one class of detectors.

The names are entry points of the group ``lit_dense.detectors``, and attributes of this module.
"""

from typing import Any

from ..criterion import CriterionArgs as CriterionArgs
from .attach import DETECTORS as DETECTORS
from .attach import attach as attach
from .attach import attached as attached
from .attach import find_detector as find_detector
from .attach import patch as patch
from .attach import set_box_outputs as set_box_outputs
from .attach import unpatch as unpatch
from .base import DetectorAdapter as DetectorAdapter
from .columns import Columns as Columns


def __getattr__(name: str) -> Any:
    return DETECTORS.attribute(name)
