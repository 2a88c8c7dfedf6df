"""The mathematics: tensors in, tensors out, one method a file."""

from .bce import bce_loss as bce_loss
from .focal import focal_loss as focal_loss
