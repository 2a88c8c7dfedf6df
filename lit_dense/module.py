"""The former place of :class:`lit_dense.LitRetinaNet`, which older configurations name."""

from .training import LitRetinaNet as LitRetinaNet
