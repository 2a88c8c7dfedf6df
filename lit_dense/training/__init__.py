"""LightningModules that train a detector."""

from .lit_detector import LitDetector as LitDetector
from .lit_retinanet import LitRetinaNet as LitRetinaNet
