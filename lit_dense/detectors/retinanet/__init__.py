"""torchvision's RetinaNet."""

from .adapter import RetinaNetAdapter as RetinaNetAdapter
