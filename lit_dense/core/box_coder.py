"""The interface of box coders."""

from typing import Protocol

from torch import Tensor


class BoxCoder(Protocol):
    """Interface of a box coder: converts boxes into deltas of anchors and back, as torchvision's ``BoxCoder``."""

    def encode_single(self, reference_boxes: Tensor, proposals: Tensor) -> Tensor:
        """Encode boxes as deltas of the proposals [N, 4]."""

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """Decode deltas of ``boxes`` into boxes [N, 4]."""
