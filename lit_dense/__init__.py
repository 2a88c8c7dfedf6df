"""Any loss and any sample weighting for dense object detection, one word each, in PyTorch Lightning.

Names are imported when they are used, so that ``lit-dense list`` answers without importing torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from .assigners import Assigner as Assigner
    from .box_losses import BoxLoss as BoxLoss
    from .callbacks import SwapLoss as SwapLoss
    from .class_counts import ClassCounts as ClassCounts
    from .criterion import Criterion as Criterion
    from .data import CocoDataModule as CocoDataModule
    from .detectors import patch as patch
    from .detectors import unpatch as unpatch
    from .functional import Elements as Elements
    from .losses import DenseLoss as DenseLoss
    from .losses import SigmoidLoss as SigmoidLoss
    from .metrics import DetectionMAP as DetectionMAP
    from .normalizers import Normalizer as Normalizer
    from .samplers import ImageSampler as ImageSampler
    from .samples import DenseSamples as DenseSamples
    from .training import LitDetector as LitDetector
    from .training import LitRetinaNet as LitRetinaNet
    from .weighters import Weighter as Weighter
    from .weighters import Weights as Weights

_WHERE = {
    "Assigner": "assigners",
    "BoxLoss": "box_losses",
    "ClassCounts": "class_counts",
    "CocoDataModule": "data",
    "Criterion": "criterion",
    "DenseLoss": "losses",
    "DenseSamples": "samples",
    "DetectionMAP": "metrics",
    "Elements": "functional",
    "ImageSampler": "samplers",
    "LitDetector": "training",
    "LitRetinaNet": "training",
    "Normalizer": "normalizers",
    "SigmoidLoss": "losses",
    "SwapLoss": "callbacks",
    "Weighter": "weighters",
    "Weights": "weighters",
    "patch": "detectors",
    "unpatch": "detectors",
}
__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'lit_dense' has no attribute {name!r}")
    try:
        module = import_module(f".{_WHERE[name]}", __name__)
    except ModuleNotFoundError as error:
        from .errors import missing_package

        if (message := missing_package(error)) is None:
            raise
        raise ModuleNotFoundError(f"lit_dense.{name}: {message}", name=error.name) from error
    return getattr(module, name)
