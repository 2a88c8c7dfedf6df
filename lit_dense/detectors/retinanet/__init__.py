"""torchvision's RetinaNet: its adapter, faster methods and builder."""

from .adapter import RetinaNetAdapter as RetinaNetAdapter
