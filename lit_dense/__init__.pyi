"""The names of ``lit_dense``: the package reads them from here, and so do type checkers."""

from ._version import __version__ as __version__
from .assigners import Assigner as Assigner
from .box_losses import BoxLoss as BoxLoss
from .callbacks import SwapLoss as SwapLoss
from .core.class_counts import ClassCounts as ClassCounts
from .core.samples import DenseSamples as DenseSamples
from .criterion import Criterion as Criterion
from .data import CocoDataModule as CocoDataModule
from .detectors import patch as patch
from .detectors import unpatch as unpatch
from .formats import Format as Format
from .functional import SigmoidTerms as SigmoidTerms
from .inference import load as load
from .losses import DenseLoss as DenseLoss
from .losses import SigmoidLoss as SigmoidLoss
from .metrics import DetectionMAP as DetectionMAP
from .normalizers import Normalizer as Normalizer
from .samplers import ImageSampler as ImageSampler
from .training import LitDetector as LitDetector
from .training import LitRetinaNet as LitRetinaNet
from .weighters import Weighter as Weighter
from .weighters import Weights as Weights
