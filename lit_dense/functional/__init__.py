"""The mathematics as functions of tensors: losses, sample weights, matching, statistics, selection of detections.

A loss function is imported on first use from the file of its name: ``focal_loss`` from ``focal.py``.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from .._moved import former
from .bootstrapping import TargetChange as TargetChange
from .fused.anchor_loss import per_anchor as per_anchor
from .fused.anchor_loss import plain_path as plain_path
from .fused.sigmoid_terms import SigmoidTerms as SigmoidTerms
from .fused.sigmoid_terms import sum_over_classes as sum_over_classes
from .iou_variant import IoUVariant as IoUVariant


def __getattr__(name: str) -> Any:
    module = f"{__name__}.{name.removesuffix('_loss')}"
    if not name.endswith("_loss") or find_spec(module) is None:
        return former(__name__, name)
    return getattr(import_module(module), name)
