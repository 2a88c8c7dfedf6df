"""``DistributionCoder``: boxes as distributions of the distances from a point to their sides."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection._utils import BoxLinearCoder

from ..functional.distribution_focal import expected_distances


class DistributionCoder:
    """Coder of boxes as four distributions of distances (https://arxiv.org/abs/2006.04388), with torchvision's methods.

    The distances of the left, upper, right and lower side are measured from the centre of a cell, in units of its side.

    Args:
        bins: Number n of bins of a distribution, which stand for 0 to n - 1.
    """

    def __init__(self, bins: int) -> None:
        self.bins = bins
        self._distances = BoxLinearCoder()

    def encode_single(self, reference_boxes: Tensor, proposals: Tensor) -> Tensor:
        """Return the distances from the centres of cells to the sides of boxes; negative outside of the box [N, 4].

        Args:
            reference_boxes: The boxes [N, 4].
            proposals: The cells [N, 4].
        """
        return torch.as_tensor(self._distances.encode(proposals, reference_boxes))

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """Return the boxes at the expected distances [N, 4].

        Args:
            rel_codes: Logits of the bins of the left, upper, right and lower side, one side after another [N, 4 n].
            boxes: The cells [N, 4].
        """
        return torch.as_tensor(self._distances.decode(self.distances(rel_codes), boxes))

    def distances(self, outputs: Tensor) -> Tensor:
        """Return the expected distances, at least in float32 [N, 4].

        Args:
            outputs: Logits of the bins [N, 4 n].
        """
        wide = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        return expected_distances(wide.unflatten(1, (4, self.bins)))

    def outputs_of(self, deltas: Tensor) -> Tensor:
        """Return logits whose distributions have all weight in the two bins next to each distance [N, 4 n].

        Args:
            deltas: Distances [N, 4]; those outside of the bins become the nearest bin.
        """
        positions = torch.arange(self.bins, dtype=deltas.dtype, device=deltas.device)
        distances = deltas.clamp(0, self.bins - 1).unsqueeze(-1)
        weights = F.relu(1 - (distances - positions).abs())
        return weights.clamp(min=1e-12).log().flatten(1)
