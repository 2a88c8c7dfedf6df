"""Any loss and any sample weighting for dense object detection, one word each, in PyTorch Lightning.

Names are imported when they are used, so that ``lit-dense list`` answers without importing torch.
"""

from ._version import __version__ as __version__
