"""The targets of images that are predicted in tiles."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .dataset import Sample, collate_images

TILING = "tiling"
"""The field of targets with the side of a tile in pixels and the overlap as a share of it."""


def collate_tiled(samples: Sequence[Sample], tile: int, overlap: float) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """Collate samples for prediction in tiles: whole images, whose targets have the additional field ``tiling``.

    Args:
        samples: Images and targets.
        tile: Side of a tile in pixels.
        overlap: Smallest share of a tile's side that its neighbour also covers.
    """
    images, targets = collate_images(samples)
    return images, [{**target, TILING: (tile, overlap)} for target in targets]
